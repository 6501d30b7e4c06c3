"""The images of releases: pulled, pinned by digest, and tagged by us, since one pulled by digest counts as dangling."""

from .errors import RefusedError
from .paths import Paths
from .stack import Stack
from .state import Release

VERSION_LABEL = "org.opencontainers.image.version"
PULL_TIMEOUT = 900


def ours(paths: Paths, release: Release) -> str:
    """Our own tag on a release's image."""
    return f"{paths.release_repository}:{release.id}"


def pin(
    stack: Stack, release: Release, *, digest: str | None, live: Release | None, stays: Release | None
) -> tuple[str, str]:
    """repository@sha256:… of the release's image, tagged as ours, and what there is to say of it.

    `digest`: what it has to be. `stays`: its image is taken as it is; a converge mends what runs and must not bring in
    what was pushed under the same tag since.
    """
    docker, repository = stack.docker, stack.config.repository
    if stays and docker.image(stays.image):
        docker.call("the image can't be tagged", ["docker", "tag", stays.image, ours(stack.paths, release)])
        return stays.image, f"{stays.image}, which is live"
    reference = f"{repository}@{digest}" if digest else f"{repository}:{release.tag}"
    pulled = stack.machine.run(["docker", "pull", "--quiet", reference], timeout=PULL_TIMEOUT)
    image = pinned = None
    if not pulled.code:
        image = docker.image(reference)
        short = f"{repository.removeprefix('docker.io/').removeprefix('library/')}@"  # as Docker shortens its own
        pinned = next((name for name in image.digests if name.startswith(short)), None) if image else None
    elif live and live.tag == release.tag and (not digest or live.image.endswith(digest)):
        image, pinned = docker.image(live.image), live.image
    if not image or not pinned:
        raise RefusedError(f"{reference} can't be had: {pulled.reason}: check the tag and the registry's login")
    version = image.labels.get(VERSION_LABEL)
    if stack.config.version_path and version != release.tag:
        raise RefusedError(f"{reference} says it is version {version!r} (label {VERSION_LABEL}): build it anew")
    docker.call("the image can't be tagged", ["docker", "tag", pinned, ours(stack.paths, release)])
    return pinned, f"{pinned}, which is here; the registry: {pulled.reason}" if pulled.code else pinned


def untag(stack: Stack, release: Release) -> None:
    stack.machine.run(["docker", "rmi", ours(stack.paths, release)])


def prune(stack: Stack, kept: set[str]) -> None:
    """Remove the images of all releases but those with these ids."""
    repository = stack.paths.release_repository
    images = stack.docker.images_of(repository)
    needed = {images[release_id] for release_id in kept if release_id in images}
    for release_id in images.keys() - kept:
        # The image by all its names, unless a kept release is the same image: then our name for it alone.
        name, image = f"{repository}:{release_id}", images[release_id]
        stack.machine.run(["docker", "rmi", name] if image in needed else ["docker", "rmi", "--force", image])
