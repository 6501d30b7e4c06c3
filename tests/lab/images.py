"""The images of the lab.

World builds the images and pushes them to its registry. This machine caches the registry's storage.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.lab import machine, rootfs, secrets_file
from tests.lab.blueprint import REGISTRY_USER
from tests.lab.host import run, say
from tests.lab.layout import CACHE, DOMAIN, ENV_FILE, WORLD
from tests.lab.rootfs import Recipe

HERE = Path(__file__).parent
REGISTRY = f"registry.{DOMAIN}"
STORAGE = WORLD.root / "var/lib/docker-registry"
CACHED_STORAGE = CACHE / "registry"
BUILT = "built.json"  # a file in the registry's storage, with the key of each image
WORKSHOP = "var/tmp/images"  # a directory of world for build contexts
SLIM = Recipe(name="slim", packages=())
SLIM_TAG = "debian:trixie-slim"
PYTHON = "3.13"  # Debian 13's version of Python, for which the bot's wheels are fetched


@dataclass(frozen=True)
class Image:
    """An image to build, with its name and tag in the registry, its Dockerfile's directory and its build arguments.

    `base` is the lab's image on which this one is built. Without `base`, the image is built on Debian's.
    """

    name: str
    source: Path
    arguments: tuple[str, ...] = ()
    base: Image | None = None

    def key(self) -> str:
        """Return a key that changes when the image must be built again."""
        below = self.base.key() if self.base else SLIM.key(rootfs.apt_sources())
        digest = hashlib.sha256(repr((self.name, self.arguments, below)).encode())
        for file in sorted(_sources(self.source)):
            executable = file.stat().st_mode & 0o100
            digest.update(f"{file.relative_to(self.source)} {executable} {file.stat().st_size} ".encode())
            digest.update(file.read_bytes())
        return digest.hexdigest()


BOT = Image("toogoodtogo-bot:1.0.0", HERE / "bot", ("VERSION=1.0.0",))


def _variant(tag: str, *arguments: str, base: Image = BOT) -> Image:
    return Image(f"toogoodtogo-bot:{tag}", HERE / "variants", (f"VARIANT={tag}", *arguments), base)


EXPANDED = _variant("1.2.0", "REVISION=r0004_expand")

# The slowest build comes first. A base comes before the images that are built on it.
IMAGES = (
    BOT,
    Image("postgres:17-trixie", HERE / "images/postgres"),
    Image("redis:8-trixie", HERE / "images/redis"),
    Image("plain-http:1.0.0", HERE / "plain"),
    _variant("1.1.0"),
    EXPANDED,
    _variant("1.3.0", "REVISION=r0005_contract", base=EXPANDED),
    _variant("broken-crash"),
    _variant("broken-unready"),
    _variant("broken-version", "VERSION=0.0.0"),
    _variant("broken-label", "LABEL=0.0.0"),
    _variant("broken-migration", "REVISION=r0004_fails"),
    _variant("broken-hang", "REVISION=r0004_hangs"),
    _variant("broken-500"),
    _variant("broken-probe"),
    _variant("broken-worker"),
    _variant("broken-trust"),
    _variant("deaf"),
    _variant("deaf-broken", "VERSION=0.0.0"),
)


def restore() -> None:
    """Copy the registry's storage from the cache into a new world that has not booted yet."""
    if CACHED_STORAGE.exists():
        rootfs.remove(STORAGE)
        rootfs.copy(CACHED_STORAGE, STORAGE)
        run(
            "chroot", WORLD.root, "chown", "--recursive", "docker-registry:", Path("/", STORAGE.relative_to(WORLD.root))
        )


def push_missing() -> None:
    """Build and push the images that the registry lacks, and cache the result."""
    wanted = {image.name: image.key() for image in IMAGES}
    present = _built()
    missing = [image for image in IMAGES if present.get(image.name) != wanted[image.name]]
    if not missing:
        return
    _import_slim()
    _log_in()
    say(f"Building {len(missing)} images")
    made: dict[Image, Future[None]] = {}
    with ThreadPoolExecutor(max_workers=2) as both_cores:
        for image in missing:
            made[image] = both_cores.submit(_make, image, made.get(image.base) if image.base else None)
        for image, future in made.items():
            future.result()
            say(f"{image.name} is in the registry")
    machine.inside(WORLD, "docker", "logout", REGISTRY)
    _store(wanted)


def _built() -> dict[str, str]:
    """Return the key of each image in the registry."""
    file = STORAGE / BUILT
    built: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return built


def _make(image: Image, base: Future[None] | None) -> None:
    """Wait until the base image, whose build started earlier, is built. After that, build and push the image."""
    if base:
        base.result()
    _build(image)
    machine.inside(WORLD, "docker", "push", "--quiet", f"{REGISTRY}/{image.name}")


def _build(image: Image) -> None:
    context = WORLD.root / WORKSHOP / image.name
    rootfs.remove(context)
    for file in _sources(image.source):
        target = context / file.relative_to(image.source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    requirements = image.source / "requirements.txt"
    if requirements.exists():
        shutil.copytree(_wheels(requirements), context / "wheels")
    below = (f"BASE={REGISTRY}/{image.base.name}",) if image.base else ()
    arguments = [word for argument in (*image.arguments, *below) for word in ("--build-arg", argument)]
    directory = f"/{context.relative_to(WORLD.root)}"
    machine.inside(WORLD, "docker", "build", "--quiet", "--tag", f"{REGISTRY}/{image.name}", *arguments, directory)
    rootfs.remove(context)


def _wheels(requirements: Path) -> Path:
    """Fetch the wheels of a requirements file, and return the wheels' directory.

    World cannot fetch the wheels, because only this machine knows its package index.
    """
    wheels = CACHE / "wheels" / hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    if not wheels.exists():
        say(f"Fetching the wheels of {requirements.relative_to(HERE)}")
        draft = wheels.with_name(f".{wheels.name}.new")
        rootfs.remove(wheels.parent)  # remove the wheels of older requirements
        download = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")
        safety = ("--require-hashes", "--only-binary=:all:", f"--python-version={PYTHON}")
        run(*download, *safety, "--requirement", requirements, "--dest", draft)
        draft.rename(wheels)
    return wheels


def _import_slim() -> None:
    """Build the base of all images from Debian's packages, under the name of Debian's official image."""
    if machine.inside(WORLD, "docker", "image", "ls", "--quiet", SLIM_TAG):
        return
    root = rootfs.build(SLIM)
    say(f"Importing {SLIM_TAG}")
    archive = WORLD.root / "var/tmp/slim.tar"
    run("tar", f"--directory={root}", f"--file={archive}", "--create", ".")
    machine.inside(
        WORLD, "docker", "import", "--change", 'CMD ["bash"]', f"/{archive.relative_to(WORLD.root)}", SLIM_TAG
    )
    archive.unlink()


def _log_in() -> None:
    password = secrets_file.read(ENV_FILE)["REGISTRY_PASSWORD"]
    machine.inside(
        WORLD, "docker", "login", f"--username={REGISTRY_USER}", "--password-stdin", REGISTRY, stdin=password
    )


def _store(built: dict[str, str]) -> None:
    """Delete untagged images and cache the registry's storage."""
    machine.inside(WORLD, "docker-registry", "garbage-collect", "--delete-untagged", "/etc/docker/registry/config.yml")
    machine.inside(WORLD, "systemctl", "restart", "docker-registry")
    (STORAGE / BUILT).write_text(json.dumps(built))
    rootfs.remove(CACHED_STORAGE)
    rootfs.copy(STORAGE, CACHED_STORAGE)


def _sources(directory: Path) -> list[Path]:
    """Return the files that belong to an image, without caches of tools."""
    files = (file for file in directory.rglob("*") if file.is_file())
    return [file for file in files if not any(part == "__pycache__" or part.endswith("_cache") for part in file.parts)]
