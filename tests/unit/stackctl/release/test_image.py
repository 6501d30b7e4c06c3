"""A release uses the right image, whether it is named by tag, named by digest, or the live one."""

from dataclasses import replace

import pytest

from stackctl.app import state
from stackctl.app.app_env import canonical
from stackctl.core import lock
from tests.support.fakes.declared import REPOSITORY
from tests.support.fakes.droplet import ENVIRONMENT, Droplet, stackctl


def moved(droplet: Droplet, tag: str, version: str) -> None:
    """Publish another image under the live tag. Its label still names the tag."""
    droplet.docker.registry[tag] = version


def declared_anew(droplet: Droplet) -> None:
    droplet.paths.next_environment.write_bytes(canonical({**ENVIRONMENT, "LOG_LEVEL": "DEBUG"}))


def test_a_converge_brings_in_nothing_that_was_pushed_under_the_live_tag_since(live: Droplet) -> None:
    """A converge restarts the recorded image. Only a release uses an image that was pushed under the live tag later."""
    moved(live, "1.0.0", "9.9.9")
    declared_anew(live)
    with lock.exclusive(live.paths.lock, "ada's converge", 0):
        holder = lock.holder_of(live.paths.lock)
        assert holder
        code, shown = stackctl(live, "--lock-id", holder.id, "release", "1.0.0")
    assert code == 0, shown
    current = state.load(live.paths).release
    assert current
    assert current.image == f"{REPOSITORY}@sha256:1.0.0"
    assert {container["image"] for container in live.docker.of("bot-green")} == {f"{REPOSITORY}@sha256:1.0.0"}
    assert f"{REPOSITORY}@sha256:1.0.0, which is live" in shown
    assert not live.ran("docker pull")
    # A release by hand uses the new image, and is refused because the image's label names another version.
    assert "has version '9.9.9'" in stackctl(live, "release", "1.0.0")[1]


DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.mark.parametrize(("asked", "code"), [(DIGEST, 0), (OTHER, 2)])
def test_a_digest_is_the_live_one_s_or_refused_when_the_registry_is_gone(live: Droplet, asked: str, code: int) -> None:
    """CI names its image by digest. While the registry is unreachable, only the live image's digest can be released."""
    current = state.load(live.paths)
    assert current.release
    pinned = f"{REPOSITORY}@{DIGEST}"
    live.docker.images[pinned] = live.docker.images[current.release.image]
    there = replace(current.release, image=pinned)
    state.save(live.paths, replace(current.with_colour("blue", there), kept=(there,), worker=there))
    live.docker.registry.clear()
    ended, shown = stackctl(live, "release", f"1.0.0@{asked}")
    assert ended == code, shown
    assert ("cannot pull" in shown) == (code == 2)
