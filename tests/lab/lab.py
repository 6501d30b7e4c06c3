"""Start, stop and inspect the whole lab. At any time, only one checkout owns the lab."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path

import bcrypt

from tests.lab import authority, blueprint, images, keys, machine, network, processes, qemu, rootfs, secrets_file
from tests.lab.host import LabError, run, say
from tests.lab.layout import (
    CHECKOUT,
    DOT_LAB,
    DROPLETS,
    ENV_FILE,
    MACHINES,
    NEIGHBOUR,
    NSPAWN_RUN,
    RUN,
    STATE,
    VM,
    WORLD,
    Machine,
)

OWNER = STATE / "owner"
IP_FORWARD_BEFORE = RUN / "ip_forward"
NSPAWN_MOUNT = "marketplace-lab"
ACME_ROOT = "etc/telegram/acme-root.pem"


class Found(Enum):
    """The remains of an earlier run on this machine, perhaps of another checkout."""

    NOTHING = "nothing"
    OURS = "ours"
    LEFTOVERS = "leftovers"
    ANOTHERS = "another's"


def judge(owner: str | None, me: str, *, alive: bool) -> Found:
    """Judge the lab on this machine, which belongs to the checkout `owner`.

    The lab of another checkout is left alone only if that lab's machines run.
    """
    if owner == me:
        return Found.OURS
    if alive and owner is not None and Path(owner).exists():
        return Found.ANOTHERS
    return Found.LEFTOVERS if alive or owner else Found.NOTHING


def up(droplets: int, *, vm: bool = False) -> None:
    """Create and boot the missing machines. The droplets are booted first, so that they are usable early."""
    if vm:
        qemu.check()
    with _alone():
        _claim()
        _prepare_host()
        secrets_file.make(ENV_FILE)
        keys.make(MACHINES)
        authority.make()
        keys.give_to_owner(DOT_LAB, ENV_FILE)
        missing = [known for known in (WORLD, NEIGHBOUR) if not known.root.exists()]
        with ThreadPoolExecutor(max_workers=1) as second_core:
            roots = [second_core.submit(rootfs.build, blueprint.of(known).recipe) for known in missing]
            for droplet in (*DROPLETS[:droplets], *([VM] if vm else [])):
                ensure(droplet)
            for root in roots:
                root.result()
        for around in (WORLD, NEIGHBOUR):
            ensure(around)
        _share_secrets()
        images.push_missing()
        say(f"The lab is up: ssh -F {keys.SSH_CONFIG.relative_to(CHECKOUT)} {DROPLETS[0].name}")


def down() -> None:
    """Remove everything that `up` made on this machine except the cache."""
    with _alone():
        _refuse_anothers(_found())
        _remove_everything()
        shutil.rmtree(DOT_LAB, ignore_errors=True)
        ENV_FILE.unlink(missing_ok=True)
        say("The lab is down. Only the cache is left.")


def recreate(which: Machine) -> None:
    """Replace a machine with a new machine that has the same name, addresses and host key."""
    _must_be_ours()
    if which.is_virtual:
        qemu.check()
    machine.destroy(which)
    ensure(which)
    say(f"{which.name} was replaced")
    if which == WORLD:
        images.push_missing()


def destroy(which: Machine) -> None:
    """Remove a machine."""
    _must_be_ours()
    machine.destroy(which)
    say(f"{which.name} was removed")


def reboot(which: Machine) -> None:
    """Reboot a machine cleanly."""
    _must_be_ours()
    machine.reboot(which)
    _share_acme_root(which)
    say(f"{which.name} is up again")


def crash(which: Machine) -> None:
    """Kill a machine and boot it again."""
    _must_be_ours()
    machine.crash(which)
    _share_acme_root(which)
    say(f"{which.name} is up again")


def status() -> str:
    """Return one line per machine with its name, state and addresses."""
    lines = []
    for known in MACHINES:
        if machine.first_process(known):
            lines.append(f"{known.name:10} on   {known.ipv4}  {known.ipv6}")
        elif known.root.exists():
            lines.append(f"{known.name:10} off")
    return "\n".join(lines) or "The lab is down."


def ensure(wanted: Machine) -> None:
    """Create a missing machine, replace an outdated one, and boot a machine that is off."""
    plan = blueprint.of(wanted)
    if machine.is_outdated(wanted, plan):
        say(f"Replacing {wanted.name}: its blueprint changed")
        if wanted == WORLD:
            say("The new ACME server has a new root, so the old server's certificates are no longer trusted")
        machine.destroy(wanted)
    if not wanted.root.exists():
        say(f"Making {wanted.name}")
        machine.create(wanted, plan)
        if wanted == WORLD:
            images.restore()
    if processes.has_keeper(wanted.name):
        network.attach(wanted.interface)  # attaches the machine again if the bridge was deleted
    else:
        say(f"Booting {wanted.name}" + (f". {qemu.accelerator(wanted)}" if wanted.is_virtual else ""))
        machine.start(wanted)
        _share_acme_root(wanted)
        say(f"{wanted.name} is up")


def _share_acme_root(changed: Machine) -> None:
    """Make neighbour trust pebble's certificates. Pebble has a new root each time world boots."""
    if changed in {WORLD, NEIGHBOUR} and processes.leader(WORLD.name) and NEIGHBOUR.root.exists():
        machine.inside(WORLD, "systemctl", "start", "pebble.service")  # returns when pebble's root exists
        shutil.copyfile(WORLD.root / ACME_ROOT, NEIGHBOUR.root / "root/acme-root.pem")


def _share_secrets() -> None:
    """Give world the env file's registry password, bot token and S3 keys."""
    secrets = secrets_file.read(ENV_FILE)
    htpasswd, tokens = WORLD.root / blueprint.HTPASSWD, WORLD.root / blueprint.TOKENS
    _, _, known = htpasswd.read_text().strip().partition(":")
    if not bcrypt.checkpw(secrets["REGISTRY_PASSWORD"].encode(), known.encode()):
        say("The registry's password changed")
        htpasswd.write_bytes(blueprint.world_secrets()[blueprint.HTPASSWD].content)
    if tokens.read_text().strip() != secrets["TELEGRAM_BOT_TOKEN"]:
        say("The bot's token changed. Restarting Telegram, which loses its state")
        revoke(secrets["TELEGRAM_BOT_TOKEN"])
    wanted = blueprint.world_secrets()
    of_s3 = {path: wanted[path].content for path in (blueprint.S3_KEYS, blueprint.S3_OPERATOR)}
    if any((WORLD.root / path).read_bytes() != content for path, content in of_s3.items()):
        say("The S3 store's keys changed")
        for path, content in of_s3.items():
            (WORLD.root / path).write_bytes(content)
        machine.inside(WORLD, "systemctl", "restart", "s3.service", "s3-door.service")


def revoke(token: str) -> None:
    """Restart the lab's Telegram without state, so that it accepts only this token, as after /revoke at @BotFather."""
    (WORLD.root / blueprint.TOKENS).write_text(f"{token}\n")
    machine.inside(WORLD, "systemctl", "restart", "telegram.service")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the lab's lock, so that two runs do not build or remove the same things."""
    RUN.mkdir(exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("Another `up` or `down` of the lab is running. Next: wait until it has finished.") from None
        yield


def _found() -> Found:
    alive = any(processes.all_of(known.name) for known in MACHINES)
    return judge(_owner(), str(CHECKOUT), alive=alive)


def _owner() -> str | None:
    return OWNER.read_text() if OWNER.exists() else None


def _refuse_anothers(found: Found) -> None:
    if found == Found.ANOTHERS:
        raise LabError(f"The lab of another checkout is running here: {_owner()}. Next: `make lab-down` there.")


def _must_be_ours() -> None:
    found = _found()
    _refuse_anothers(found)
    if found != Found.OURS:
        raise LabError("There is no lab here. Next: `make lab-up`.")


def _claim() -> None:
    found = _found()
    _refuse_anothers(found)
    if found == Found.OURS and not keys.IDENTITY.exists():
        found = Found.LEFTOVERS  # without the key, nobody can log in to these machines
    if found == Found.LEFTOVERS:
        say(f"Removing the remains of the lab of {_owner() or 'another checkout'}")
        _remove_everything()
    RUN.mkdir(exist_ok=True)
    STATE.mkdir(mode=0o700, exist_ok=True)
    OWNER.write_text(str(CHECKOUT))


def _prepare_host() -> None:
    if not IP_FORWARD_BEFORE.exists():
        IP_FORWARD_BEFORE.write_text(network.IP_FORWARD.read_text())
    NSPAWN_RUN.mkdir(parents=True, exist_ok=True)
    # Without systemd on the host, /run may be a plain directory, and nspawn could not boot a machine again after a
    # reboot.
    if run("findmnt", "--noheadings", "--output=FSTYPE", f"--target={NSPAWN_RUN}").strip() != "tmpfs":
        run("mount", "-t", "tmpfs", NSPAWN_MOUNT, NSPAWN_RUN)
    network.up()


def _remove_everything() -> None:
    for known in MACHINES:
        machine.destroy(known)
    network.down(ip_forward=IP_FORWARD_BEFORE.read_text() if IP_FORWARD_BEFORE.exists() else None)
    if (
        run("findmnt", "--noheadings", "--output=SOURCE", f"--mountpoint={NSPAWN_RUN}", check=False).strip()
        == NSPAWN_MOUNT
    ):
        run("umount", NSPAWN_RUN)
    processes.remove_groups()
    rootfs.remove(STATE)
    shutil.rmtree(RUN)
