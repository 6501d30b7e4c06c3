"""Pulls, tags and pins (by digest) the images of releases.

Each image gets a tag of our own, because Docker treats an untagged image as dangling, even after a pull by digest.
"""

from stackctl.app.stack import Stack
from stackctl.app.state import Release
from stackctl.core.errors import RefusedError
from stackctl.core.paths import Paths
from stackctl.services.docker import Image

VERSION_LABEL = "org.opencontainers.image.version"
PULL_TIMEOUT = 900
FOREIGN = {"amd64", "arm64"}
"""Architectures that cannot run each other's images. Whether they run 32-bit images depends on the kernel."""


def ours(paths: Paths, release: Release) -> str:
    """Return the tag that stackctl puts on a release's image."""
    return f"{paths.docker.release_repository}:{release.id}"


def pin(
    stack: Stack, release: Release, *, digest: str | None, live: Release | None, stays: Release | None
) -> tuple[str, str]:
    """Pull and tag the release's image. Return the image's name with its digest (repository@sha256:…), and a message.

    If `digest` is given, the image must have this digest. `stays` is a release whose image must be used again. A
    converge passes the live release as `stays`, so that the live image is kept even if another image was pushed under
    the same tag.
    """
    docker, repository = stack.docker, stack.config.repository
    if stays and docker.image(stays.image):
        docker.call("the image can't be tagged", ["docker", "tag", stays.image, ours(stack.paths, release)])
        return stays.image, f"{stays.image}, which is live"
    exactly = stays.image if stays else f"{repository}@{digest}" if digest else None
    reference = exactly or f"{repository}:{release.tag}"
    pulled = stack.machine.run(["docker", "pull", "--quiet", reference], timeout=PULL_TIMEOUT)
    image = pinned = None
    if not pulled.code:
        image = docker.image(reference)
        # Docker lists repositories of Docker Hub without this prefix
        short = f"{repository.removeprefix('docker.io/').removeprefix('library/')}@"
        names = image.digests if image else []
        pinned = exactly or next((name for name in names if name.startswith(short)), None)
    elif live and live.tag == release.tag and (not digest or live.image.endswith(digest)):
        image, pinned = docker.image(live.image), live.image
    if not pulled.code and not image:
        raise RefusedError(
            f"docker pulled {reference}, but does not list the image", next_step="systemctl status docker"
        )
    if not image or not pinned:
        raise RefusedError(
            f"cannot pull {reference}: {pulled.reason}", next_step="check the tag and the registry login"
        )
    _check(stack, release, reference, image)
    docker.call("the image can't be tagged", ["docker", "tag", pinned, ours(stack.paths, release)])
    return (
        pinned,
        f"{pinned}, which is already on the droplet. The pull failed: {pulled.reason}" if pulled.code else pinned,
    )


def _check(stack: Stack, release: Release, reference: str, image: Image) -> None:
    """Refuse an image that has the wrong version or architecture, or that would run as root."""
    version = image.labels.get(VERSION_LABEL)
    if stack.config.version_path and version != release.tag:
        raise RefusedError(
            f"{reference} has version {version!r} in its label {VERSION_LABEL}, not {release.tag}",
            next_step="build the image again",
        )
    if image.runs_as_root:
        raise RefusedError(
            f"{reference} would run as root (USER {image.user!r})", next_step="set USER to another account"
        )
    ours_is = stack.machine.architecture()
    if image.architecture in FOREIGN - {ours_is} and ours_is in FOREIGN:
        raise RefusedError(
            f"{reference} is built for {image.architecture}, but this droplet has the architecture {ours_is}",
            next_step=f"build the image with --platform linux/{ours_is}",
        )


def prune(stack: Stack, kept: set[str]) -> None:
    """Remove all images of the app except the images of the `kept` releases.

    An image from a failed release is also removed.
    """
    docker, ours_of = stack.docker, stack.docker.images_of(stack.paths.docker.release_repository)
    needed = {image for release_id, image in ours_of.items() if release_id in kept}
    for image in {*ours_of.values(), *docker.images_of(stack.config.repository).values()} - needed:
        stack.machine.run(["docker", "rmi", "--force", image])
    for release_id, image in ours_of.items():
        # If another release needs the image, only our tag is removed.
        if release_id not in kept and image in needed:
            stack.machine.run(["docker", "rmi", f"{stack.paths.docker.release_repository}:{release_id}"])
