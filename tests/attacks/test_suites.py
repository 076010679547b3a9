"""The attacks of one paper together: which they are, and how their networks are trained."""

from mialib.attacks import bayesian, blindmi, likelihood, neural, pairs, ratios, suites, threshold
from mialib.store import Store

SGD = neural.schedule(epochs=4, lr=1e-2, optimizer="sgd")
ADAM = neural.schedule(epochs=2, lr=1e-2, optimizer="adam")
LONG = neural.schedule(epochs=8, lr=1e-4, optimizer="sgd")
NETWORKS = ["nn", "top3_nn", "nn_class", "samia"]


def networks(attacks):
    return {name: one for name, one in attacks.items() if isinstance(one, neural.NeuralAttack)}


def test_all_attacks_are_there_by_name():
    attacks = suites.yuan2022(ADAM, LONG)
    assert sorted(attacks) == sorted([*threshold.ATTACKS, "blindmi", *NETWORKS])
    assert attacks["gap"] is threshold.gap and attacks["confidence"] is threshold.confidence
    assert attacks["blindmi"] == blindmi.BlindMIDiff()
    assert "blindmi" not in threshold.ATTACKS  # that dictionary is left as it is


def test_adam_comes_along_only_where_the_networks_are_trained_with_sgd():
    # SAMIA's optimiser has no say
    assert list(networks(suites.yuan2022(ADAM, LONG))) == NETWORKS
    attacks = suites.yuan2022(SGD, ADAM)
    assert list(networks(attacks)) == [*NETWORKS, "nn_class_adam"]
    recipe = attacks["nn_class_adam"].recipe
    assert (recipe.optimizer, recipe.epochs, recipe.lr, recipe.milestones) == ("adam", 10, 1e-3, (5, 7))


def test_nn_class_adam_is_nn_class_but_for_its_name_and_recipe():
    attacks = suites.yuan2022(SGD, LONG)
    one, other = attacks["nn_class_adam"], attacks["nn_class"]
    assert (one.features, one.network) == (other.features, other.network) == (
        neural.posteriors_and_label, attacks["nn"].network
    )  # fmt: skip
    assert one.recipe != other.recipe
    assert all(attack.name == name for name, attack in networks(attacks).items())


def test_samia_has_a_recipe_of_its_own():
    attacks = networks(suites.yuan2022(SGD, LONG))
    recipes = {name: attack.recipe for name, attack in attacks.items() if name != "nn_class_adam"}
    assert recipes == {"nn": SGD, "top3_nn": SGD, "nn_class": SGD, "samia": LONG}


def test_options_reach_every_network(tmp_path):
    store = Store(tmp_path)
    attacks = networks(suites.yuan2022(SGD, LONG, trainings=7, device="meta", cache=store))
    assert len(attacks) == 5
    for attack in attacks.values():
        assert (attack.trainings, attack.device) == (7, "meta") and attack.cache is store, attack.name


def test_who_knows_members_gets_thresholds_and_one_network():
    attacks = suites.nasr2018(ADAM, trainings=2)
    assert sorted(attacks) == sorted([*threshold.ATTACKS, "nsh"])
    assert attacks["nsh"].recipe == ADAM and attacks["nsh"].trainings == 2
    assert attacks["nsh"].features is neural.posteriors_and_label


def test_quantised_networks_get_thresholds_and_a_classifier_of_sorted_posteriors():
    attacks = suites.famili2023(ADAM, trainings=2)
    assert sorted(attacks) == sorted([*threshold.ATTACKS, "ranked_nn"])
    assert attacks["ranked_nn"].recipe == ADAM and attacks["ranked_nn"].trainings == 2
    assert attacks["ranked_nn"].features is neural.ranked


def test_the_yardstick_has_each_calibrated_attack_by_name_and_lira_from_four_shadows():
    attacks = suites.yardstick()
    for module in (likelihood, bayesian, ratios):
        own = {name: one for name, one in vars(module).items() if isinstance(one, likelihood.Calibrated)}
        assert own and all(attacks[name] is one for name, one in own.items())
    assert attacks["confidence"] is threshold.confidence
    few = suites.yardstick(shadows=2)
    assert set(attacks) - set(few) == {"lira_online", "lira_offline"}


def test_who_sees_labels_only_gets_what_needs_no_scores():
    attacks = suites.labels_only(queries=8, budget=100)
    assert all("labels" in attack.needs for attack in attacks.values())
    assert attacks["noise_robustness"].queries == 8 and attacks["boundary_distance"].budget == 100
    assert attacks["gap"] is threshold.gap


def test_who_holds_several_versions_has_normals_of_each_candidate_where_shadows_have_its_own():
    attacks = suites.pairs(ADAM, trainings=2)
    assert list(attacks) == ["pair", "pair_added", "pair_of_all", "pair_nn"]
    assert list(suites.pairs(ADAM, same_candidates=False)) == ["pair_of_all", "pair_nn"]
    assert attacks["pair_nn"] == pairs.pair_nn(ADAM, trainings=2)
    assert all("versions" in attack.needs for attack in attacks.values())
