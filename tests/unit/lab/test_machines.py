"""The lab's names, addresses, files and decisions about leftovers are right. These tests need no machine."""

import subprocess
from pathlib import Path

import pytest

from tests.lab import images, secrets_file
from tests.lab.blueprint import dnsmasq_hosts, resolv_conf
from tests.lab.host import LabError, packages
from tests.lab.images import Image
from tests.lab.keys import known_hosts, ssh_config
from tests.lab.lab import Found, judge
from tests.lab.layout import DROPLETS, NEIGHBOUR, WORLD, by_name
from tests.lab.rootfs import Recipe, sources_of


def test_v4_and_v6_addresses_end_alike() -> None:
    assert (str(WORLD.ipv4), str(WORLD.ipv6)) == ("10.77.0.2", "fd00:77::2")
    assert (str(DROPLETS[0].ipv4), str(DROPLETS[0].ipv6)) == ("10.77.0.11", "fd00:77::11")


def test_every_network_interface_has_a_name_the_kernel_takes() -> None:
    assert all(len(machine.interface) <= 15 for machine in (*DROPLETS, WORLD, NEIGHBOUR))


def test_an_unknown_machine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LabError, match=r"no machine 'droplet99'.*droplet1.*world"):
        by_name("droplet99")


def test_names_lead_to_both_addresses() -> None:
    records = dnsmasq_hosts().splitlines()
    assert "host-record=bot.lab.test,10.77.0.11,fd00:77::11" in records
    assert "host-record=registry.lab.test,10.77.0.2,fd00:77::2" in records


def test_world_is_asked_first_and_the_host_s_resolvers_after_it() -> None:
    servers = [line.split()[1] for line in resolv_conf(["192.0.2.1", "192.0.2.2", "192.0.2.3"]).splitlines()[:-1]]
    assert servers == ["10.77.0.2", "192.0.2.1", "192.0.2.2"]


def test_ssh_itself_reads_the_configuration_as_it_is_meant(tmp_path: Path) -> None:
    directory = tmp_path / "a checkout"
    file = tmp_path / "ssh_config"
    file.write_text(ssh_config([DROPLETS[0], WORLD], directory))
    for name, user, address in (("droplet1", "deploy", "10.77.0.11"), ("world", "root", "10.77.0.2")):
        told = subprocess.run(["ssh", "-G", "-F", file, name], capture_output=True, text=True, check=True).stdout
        assert f"\nuser {user}\n" in told
        assert f"\nhostname {address}\n" in told
        assert f"\nidentityfile {directory}/id_ed25519\n" in told
        assert f"\nuserknownhostsfile {directory}/known_hosts\n" in told
        assert "\nstricthostkeychecking true\n" in told


def test_a_host_key_is_known_by_name_and_by_both_addresses() -> None:
    assert known_hosts({WORLD: "ssh-ed25519 AAAA world"}) == "world,10.77.0.2,fd00:77::2 ssh-ed25519 AAAA\n"


class TestSecrets:
    """The lab writes `.env.lab` once and keeps it."""

    def test_is_kept_and_readable_by_its_owner_alone(self, tmp_path: Path) -> None:
        file = tmp_path / ".env.lab"
        first = secrets_file.make(file)
        assert secrets_file.make(file) == first == secrets_file.read(file)
        assert file.stat().st_mode & 0o777 == 0o600

    def test_a_missing_or_empty_value_is_made_and_the_others_stay(self, tmp_path: Path) -> None:
        file = tmp_path / ".env.lab"
        file.write_text("STRIPE_API_KEY=mine\nREDIS_PASSWORD=\n")
        made = secrets_file.make(file)
        assert made["STRIPE_API_KEY"] == "mine"
        assert made["REDIS_PASSWORD"]
        assert file.read_text().count("REDIS_PASSWORD=") == 1

    @pytest.mark.parametrize("value", ["'", "\\", "\\'", "\\\\n", "#", "$A${B}", '"', "a b", "é☃"])
    def test_awkward_characters_survive(self, tmp_path: Path, value: str) -> None:
        file = tmp_path / "env"
        file.write_text(secrets_file.line("NAME", value))
        assert secrets_file.read(file) == {"NAME": value}


class TestLeftovers:
    """`up` and `down` make the right decision about the remains of an earlier lab."""

    def test_a_checkout_s_own_lab_is_its_own_dead_or_alive(self, tmp_path: Path) -> None:
        assert judge(str(tmp_path), str(tmp_path), alive=True) == Found.OURS
        assert judge(str(tmp_path), str(tmp_path), alive=False) == Found.OURS

    def test_another_checkout_s_living_lab_is_left_alone(self, tmp_path: Path) -> None:
        assert judge(str(tmp_path), "/me", alive=True) == Found.ANOTHERS

    def test_a_dead_lab_is_cleared_away(self, tmp_path: Path) -> None:
        assert judge(str(tmp_path), "/me", alive=False) == Found.LEFTOVERS

    def test_so_is_a_living_one_whose_checkout_is_gone(self, tmp_path: Path) -> None:
        assert judge(str(tmp_path / "gone"), "/me", alive=True) == Found.LEFTOVERS
        assert judge(None, "/me", alive=True) == Found.LEFTOVERS

    def test_an_empty_machine_is_free(self) -> None:
        assert judge(None, "/me", alive=False) == Found.NOTHING


class TestCacheKeys:
    """A cached result is built again only if the sources change."""

    def test_of_a_root_file_system(self) -> None:
        recipe, sources = Recipe("world", ("curl",)), ["deb http://mirror/debian trixie main"]
        assert recipe.key(sources) == Recipe("world", ("curl",)).key(sources)
        others = [
            Recipe("world", ("curl", "nmap")).key(sources),
            Recipe("world", ("curl",), ("true",)).key(sources),
            recipe.key(["deb http://other/debian trixie main"]),
        ]
        assert len({recipe.key(sources), *others}) == 4

    def test_of_an_image(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(images.rootfs, "apt_sources", lambda: ["deb http://mirror/debian trixie main"])
        (tmp_path / "Dockerfile").write_text("FROM debian")
        before = Image("bot:1", tmp_path, ("VERSION=1",)).key()
        (tmp_path / "__pycache__").mkdir()
        (tmp_path / "__pycache__/x.pyc").touch()
        assert Image("bot:1", tmp_path, ("VERSION=1",)).key() == before
        assert Image("bot:1", tmp_path, ("VERSION=2",)).key() != before
        upon = Image("bot:2", tmp_path, base=Image("bot:1", tmp_path, ("VERSION=1",))).key()
        assert Image("bot:2", tmp_path, base=Image("bot:1", tmp_path, ("VERSION=2",))).key() != upon
        (tmp_path / "Dockerfile").chmod(0o755)
        assert Image("bot:1", tmp_path, ("VERSION=1",)).key() != before


class TestSources:
    """Debian 13's packages come from the mirrors that the host's Debian uses."""

    def test_of_an_older_debian_become_trixie_s(self) -> None:
        targets = (
            "Debian http://mirror/debian bookworm\n"
            "Debian http://mirror/debian bookworm-updates\n"
            "Debian http://mirror/security bookworm-security\n"
            "Docker https://docker.example/debian bookworm\n"
            "Debian http://mirror/debian bookworm-backports\n"
        )
        assert sources_of(targets, "bookworm") == [
            "deb http://mirror/debian trixie main",
            "deb http://mirror/debian trixie-updates main",
            "deb http://mirror/security trixie-security main",
        ]

    def test_are_looked_for_on_debian_alone(self) -> None:
        with pytest.raises(LabError, match="Debian 12 or 13"):
            sources_of("Ubuntu http://u noble", "noble")


def test_the_list_of_packages_is_free_of_comments() -> None:
    assert "mmdebstrap" in packages()
    assert all(" " not in package and "#" not in package for package in packages())
