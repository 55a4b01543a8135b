"""What becomes a layer of its own, and what is in none."""

from __future__ import annotations

from ipython_builder.build.plan import (
    ASSEMBLE,
    POST_BUILD,
    PRE_BUILD,
    RUN,
    Command,
    Copy,
    Facts,
    Labels,
    Run,
    Variables,
    make,
)


def test_dependencies_before_notebooks() -> None:
    plan = make("ipython-builder", Facts(frozenset(), "d1", labels={"a": "b"}))
    assert plan.layers == ("dependencies", "source")
    dependencies, source, labels, command = plan.steps
    assert isinstance(dependencies, Run)
    assert "s2i assemble --dependencies" in dependencies.line
    assert source == Copy("source", "source/opt/app-root", "/opt/app-root")
    assert labels == Labels({"a": "b"})
    assert command == Command(("/usr/libexec/s2i/run",))


def test_the_step_of_the_dependencies_knows_the_request_and_nothing_of_the_notebooks() -> None:
    one, other = (make("b", Facts(frozenset(), "d1", {"OPENSHIFT_BUILD_COMMIT": c})) for c in ("1", "2"))
    assert one.steps[0] == other.steps[0]
    assert "d1" in getattr(one.steps[0], "line")  # noqa: B009
    assert make("b", Facts(frozenset(), "d2")).steps[0] != one.steps[0]


def test_what_others_stand_on_ends_with_the_dependencies() -> None:
    plan = make("b", Facts(frozenset({POST_BUILD}), "d1", variables={"A": "1"}, labels={"a": "b"}))
    beneath = plan.environment
    assert beneath is not None
    assert (beneath.builder, beneath.steps) == ("b", plan.steps[:2])
    assert make("b", Facts(frozenset({PRE_BUILD}), "d1")).environment is None


def test_everything_a_step_needs_is_mounted_and_not_copied() -> None:
    step = make("b", Facts(frozenset(), "d1")).steps[0]
    assert isinstance(step, Run)
    kinds = [mount.partition("type=")[2].partition(",")[0] for mount in step.mounts]
    assert kinds == ["bind", "cache", "secret", "secret"]
    assert all("required=false" in mount for mount in step.mounts if "type=secret" in mount)
    assert step.line.endswith("&& rm -rf /tmp/src")


def test_a_hook_after_the_build_is_a_layer_after_the_source() -> None:
    plan = make("b", Facts(frozenset({POST_BUILD}), "d1"))
    assert plan.layers == ("dependencies", "source", "post-build")
    step = plan.steps[2]
    assert isinstance(step, Run)
    assert "s2i assemble --source" in step.line
    assert not any("secret" in mount for mount in step.mounts)


def test_a_repository_that_installs_by_itself_is_one_layer() -> None:
    plan = make("b", Facts(frozenset({ASSEMBLE, POST_BUILD}), "d1", {"OPENSHIFT_BUILD_SOURCE": "a b"}))
    assert plan.layers == ("everything",)
    step = plan.steps[0]
    assert isinstance(step, Run)
    assert "OPENSHIFT_BUILD_SOURCE='a b' /tmp/src/.s2i/bin/assemble" in step.line


def test_hooks_have_steps_of_their_own_without_secrets() -> None:
    plan = make("b", Facts(frozenset({PRE_BUILD, POST_BUILD}), "d1", {"OPENSHIFT_BUILD_SOURCE": "a b"}))
    assert plan.layers == ("pre-build", "everything", "post-build")
    before, own, after = (step for step in plan.steps if isinstance(step, Run))
    assert "s2i assemble --pre-build" in before.line
    assert "OPENSHIFT_BUILD_SOURCE='a b' ipython-builder s2i assemble --no-hooks" in own.line
    assert "s2i assemble --source" in after.line
    assert ["type=secret" in " ".join(step.mounts) for step in (before, own, after)] == [False, True, False]


def test_variables_come_first_and_an_own_run_script_is_run() -> None:
    plan = make("b", Facts(frozenset({RUN}), "d1", variables={"A": "1"}))
    assert plan.steps[0] == Variables({"A": "1"})
    assert plan.steps[-1] == Command(("/opt/app-root/src/.s2i/bin/run",))
    assert plan.layers == ("dependencies", "source")
