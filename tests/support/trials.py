"""Helpers that change the files of a trial and read the files afterwards."""

from tests.support.fakes.droplet import Droplet

RIGHT, WRONG = b"AllowUsers deploy\n", b"AllowUsers nobody\n"
KEY = b"ssh-ed25519 AAAA operator\n"


def change(bot: Droplet) -> None:
    drop_ins = bot.paths.on_trial["ssh"][1]
    (drop_ins / "00-bot.conf").write_bytes(WRONG)
    (drop_ins / "99-more.conf").write_bytes(WRONG)
    bot.paths.keys("deploy").write_bytes(b"somebody else's")


def there(bot: Droplet) -> dict[str, bytes]:
    """Return sshd's whole configuration and the admitted keys."""
    main, drop_ins = bot.paths.on_trial["ssh"]
    return {path.name: path.read_bytes() for path in [main, *drop_ins.iterdir(), bot.paths.keys("deploy")]}


def calls(bot: Droplet, program: str) -> list[list[str]]:
    return [call for call in bot.calls if call[0] == program]
