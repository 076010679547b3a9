"""Membership inference attacks, all with the one signature attack(target, shadows, shadow_member, seed) -> margins."""
