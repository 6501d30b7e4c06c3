"""Images of the lab's registry: built inside world, pushed to its registry, and kept in the cache with it."""

import hashlib
import json
import shutil
import sys
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
BUILT = "built.json"  # in the storage: what each image was built from
WORKSHOP = "var/tmp/images"  # in world: build contexts
SLIM = Recipe(name="slim", packages=())
SLIM_TAG = "debian:trixie-slim"
PYTHON = "3.13"  # Debian 13's, for which the bot's wheels are fetched


@dataclass(frozen=True)
class Image:
    """An image to build: its name and tag in the registry, the directory with its Dockerfile, its build arguments."""

    name: str
    source: Path
    arguments: tuple[str, ...] = ()

    def key(self) -> str:
        """Another one when the image must be built anew."""
        digest = hashlib.sha256(repr((self.name, self.arguments, SLIM.key(rootfs.apt_sources()))).encode())
        for file in sorted(_sources(self.source)):
            executable = file.stat().st_mode & 0o100
            digest.update(f"{file.relative_to(self.source)} {executable} {file.stat().st_size} ".encode())
            digest.update(file.read_bytes())
        return digest.hexdigest()


IMAGES = (
    Image("postgres:17-trixie", HERE / "images/postgres"),
    Image("redis:8-trixie", HERE / "images/redis"),
    Image("toogoodtogo-bot:1.0.0", HERE / "bot", ("VERSION=1.0.0",)),
    Image("toogoodtogo-bot:1.1.0", HERE / "bot", ("VERSION=1.1.0",)),
)


def restore() -> None:
    """Give a world that has just been made, and not yet booted, the registry's storage out of the cache."""
    if CACHED_STORAGE.exists():
        rootfs.remove(STORAGE)
        rootfs.copy(CACHED_STORAGE, STORAGE)
        run(
            "chroot", WORLD.root, "chown", "--recursive", "docker-registry:", Path("/", STORAGE.relative_to(WORLD.root))
        )


def push_missing() -> None:
    """Build and push what the registry doesn't have yet, and keep the result in the cache."""
    wanted = {image.name: image.key() for image in IMAGES}
    present = _built()
    missing = [image for image in IMAGES if present.get(image.name) != wanted[image.name]]
    if not missing:
        return
    _import_slim()
    _log_in()
    for image in missing:
        say(f"Building {image.name}")
        _build(image)
        say(f"Pushing {image.name}")
        machine.inside(WORLD, "docker", "push", "--quiet", f"{REGISTRY}/{image.name}")
    machine.inside(WORLD, "docker", "logout", REGISTRY)
    _store(wanted)


def _built() -> dict[str, str]:
    """The key that each image in the registry was built from."""
    file = STORAGE / BUILT
    built: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return built


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
    arguments = [word for argument in image.arguments for word in ("--build-arg", argument)]
    place = f"/{context.relative_to(WORLD.root)}"
    machine.inside(WORLD, "docker", "build", "--quiet", "--tag", f"{REGISTRY}/{image.name}", *arguments, place)
    rootfs.remove(context)


def _wheels(requirements: Path) -> Path:
    """The wheels that a requirements file locks, fetched here: only this machine knows its package index."""
    wheels = CACHE / "wheels" / hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    if not wheels.exists():
        say(f"Fetching the wheels of {requirements.relative_to(HERE)}")
        draft = wheels.with_name(f".{wheels.name}.new")
        rootfs.remove(wheels.parent)  # those of an older file
        download = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")
        safety = ("--require-hashes", "--only-binary=:all:", f"--python-version={PYTHON}")
        run(*download, *safety, "--requirement", requirements, "--dest", draft)
        draft.rename(wheels)
    return wheels


def _import_slim() -> None:
    """Make the base of all images, as the official one is named, from Debian's packages."""
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
    """Drop what no tag names any longer, and keep the registry's storage in the cache."""
    machine.inside(WORLD, "docker-registry", "garbage-collect", "--delete-untagged", "/etc/docker/registry/config.yml")
    machine.inside(WORLD, "systemctl", "restart", "docker-registry")
    (STORAGE / BUILT).write_text(json.dumps(built))
    rootfs.remove(CACHED_STORAGE)
    rootfs.copy(STORAGE, CACHED_STORAGE)


def _sources(directory: Path) -> list[Path]:
    """The files that belong to an image; not what tools left among them."""
    files = (file for file in directory.rglob("*") if file.is_file())
    return [file for file in files if not any(part == "__pycache__" or part.endswith("_cache") for part in file.parts)]
