"""What is known of a node after it was looked at: findings, what they mean for us, and the settings that fit it.

Owns the words of `doctor`, which quirks are deduced from what, whether a pull will work, and what the administrator of
the node has to register. Pure: what is found out is handed in.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date

from msgspec import Struct

from dcmsync import toml
from dcmsync.plan.split import is_suspicious
from dcmsync.quirks import COUNTS, FLAGS, PROFILES, Quirks, field_of

_DEEPER = ("find series", "find instance")
_SOON_DAYS = 30  # before its certificate ends


class Finding(Struct, frozen=True, kw_only=True):
    """The verdict of one check: None where it could not be judged. `facts` go into the record as they are."""

    check: str
    ok: bool | None
    words: str
    advice: str = ""
    facts: Mapping[str, object] = {}

    def record(self) -> dict[str, object]:
        """The record of it."""
        said: dict[str, object] = {"type": "check", "check": self.check, "ok": self.ok, "message": self.words}
        if self.advice:
            said["advice"] = self.advice
        return {**said, **self.facts}

    def line(self) -> str:
        """One line for people."""
        sign = {True: "ok  ", False: "FAIL", None: "?   "}[self.ok]
        return f"{sign} {self.check:<14} {self.words}" + (f". {self.advice}" if self.advice else "")


class Learnt(Struct, kw_only=True):
    """What was learnt of a node that its settings should say. Filled in while it is looked at."""

    flags: list[str] = []
    ignored: list[str] = []
    limit: int | None = None
    charset: str = ""
    via: str = ""
    model: str = ""
    tls_profile: str = ""
    remarks: list[str] = []
    implementation: str = ""


class Findings:
    """All findings of one node, in order; `tell` hears each at once. `giver`: those of another that gives for it."""

    def __init__(self, tell: Callable[[Finding], None]) -> None:
        self.learnt = Learnt()
        self.giver: Findings | None = None
        self._tell = tell
        self._all: list[Finding] = []

    def add(self, finding: Finding) -> None:
        """Takes a finding."""
        self._all.append(finding)
        self._tell(finding)

    def has(self, check: str) -> bool:
        """Whether a check was made."""
        return any(each.check == check for each in self._all)

    @property
    def can_pull(self) -> bool:
        """Whether all that a pull needs works, as far as was seen: queries of each level, and one way to retrieve.

        A way that was tried counts as it went; one that was not, as it is offered.
        """
        verdicts = self._verdicts
        finds = verdicts.get("find study") is True and not any(verdicts.get(check) is False for check in _DEEPER)
        gives = (self.giver or self)._verdicts
        ways = [gives.get(f"{way} instance", gives.get(way)) for way in ("get", "move")]
        return finds and True in ways

    @property
    def _verdicts(self) -> dict[str, bool | None]:
        """The last one of each check."""
        return {each.check: each.ok for each in self._all}

    def section(self, name: str, said: Mapping[str, object]) -> str:
        """The section of the configuration that fits the node: what is `said` of it already, and what was learnt."""
        learnt, table = self.learnt, dict(said)
        profile = next((key for key in PROFILES if learnt.implementation.lower().startswith(key)), None)
        if profile is not None:
            table.setdefault("profile", profile)
        held = PROFILES[str(table["profile"])].quirks if "profile" in table else Quirks()
        flags = [flag for flag in learnt.flags if not getattr(held, field_of(flag))]
        ignored = [key for key in learnt.ignored if key not in held.ignores_keys]
        for key, more in (("quirks", flags), ("ignores_keys", ignored)):
            set_already = table.get(key, ())
            assert isinstance(set_already, list | tuple)
            table[key] = list(dict.fromkeys([*set_already, *more]))
        if learnt.model:
            table["model"] = learnt.model
        for key in ("via", "limit", "charset", "tls_profile"):
            table.setdefault(key, getattr(learnt, key))
        lines = [f"# {flag}: {FLAGS[flag]}" for flag in dict.fromkeys(flags)]
        lines += [f"# {remark}" for remark in learnt.remarks]
        lines += [f"{key} = {toml.written(value)}" for key, value in table.items() if value not in (None, "", [])]
        return "\n".join([toml.header("endpoints", name), *lines]) + "\n"


class Text:
    """What the answers say of their character set."""

    def __init__(self) -> None:
        self.named: set[str] = set()
        self.is_unnamed = False  # whether text beyond ASCII came without one

    def take(self, named: object, values: Iterable[object]) -> None:
        """Looks at one answer: its Specific Character Set, and everything else in it."""
        terms = [str(term) for term in (named if isinstance(named, list) else [named]) if term]
        self.named.update(terms)
        if not terms and not all(str(value).isascii() for value in values):
            self.is_unnamed = True


def model_finding(offered: Sequence[str], asked_by: str, words_of: Mapping[str, str], learnt: Learnt) -> Finding:
    """By which information models it may be asked, and whether that which is set is among them. `offered` is not empty.

    Names are those of the configuration; `words_of` has what people call them.
    """
    words = f"offers {', '.join(words_of[name] for name in offered)}"
    facts = {"models": list(offered)}
    if asked_by in offered:
        return Finding(check="model", ok=True, words=words, facts=facts)
    learnt.model = offered[0]
    advice = f'Set model = "{offered[0]}"; it is what was tried from here on'
    return Finding(check="model", ok=False, words=f"{words}, and not {words_of[asked_by]}", advice=advice, facts=facts)


def tls_finding(
    version: str, cipher: str, *, profile: str, ends: date | None, today: date, learnt: Learnt
) -> Finding:
    """How TLS is spoken, and how long the certificate of the node is good; `ends` is None where nobody looked at it."""
    learnt.tls_profile = profile
    words = f"spoken: {version}, {cipher}, by profile {profile}"
    facts: dict[str, object] = {"version": version, "cipher": cipher, "profile": profile}
    if ends is None:
        return Finding(check="tls", ok=True, words=f"{words}; its certificate is not verified", facts=facts)
    learnt.remarks.append(f"its certificate ends on {ends.isoformat()}")
    days = (ends - today).days
    return Finding(
        check="tls",
        ok=True if days > _SOON_DAYS else None,
        words=f"{words}; its certificate ends on {ends.isoformat()}",
        advice="" if days > _SOON_DAYS else f"That is in {days} days: ask its administrator for a new one",
        facts={**facts, "certificate_ends": ends.isoformat()},
    )


def smallest(things: Sequence[Mapping[str, object]], count: str) -> Mapping[str, object]:
    """The thing with the fewest below it, by what the node says; the first where it says nothing."""

    def size(thing: Mapping[str, object]) -> float:
        said = thing.get(count)
        return said if isinstance(said, int) and said > 0 else float("inf")

    return min(things, key=size)


def keys_finding(asked: Sequence[str], answers: Sequence[Mapping[str, object]]) -> Finding:
    """Which of the attributes that were asked for come back."""
    never = [key for key in asked if not key.startswith(COUNTS) and all(key not in answer for answer in answers)]
    words = "all attributes come back" if not never else f"never comes back: {', '.join(never)}"
    return Finding(check="keys", ok=True, words=words, facts={"missing": never})


def counts_finding(claims: Sequence[tuple[str, Mapping[str, object], int]], learnt: Learnt) -> Finding:
    """Whether counts are there and right: (keyword, what the node says of one thing, how many there are) of each."""
    told = [(keyword, answer.get(keyword), real) for keyword, answer, real in claims]
    told = [(keyword, said, real) for keyword, said, real in told if said not in (None, "")]
    wrong = [keyword for keyword, said, real in told if said != real]
    if wrong:
        learnt.flags.append("no-counts")
        words = f"wrong: {', '.join(wrong)}"
        return Finding(check="counts", ok=False, words=words, advice="They are not asked for", facts={"wrong": wrong})
    if not told:
        learnt.flags.append("no-counts")
        return Finding(check="counts", ok=True, words="it tells none")
    return Finding(check="counts", ok=True, words=f"right: {', '.join(keyword for keyword, _, _ in told)}")


def matching_finding(tried: Mapping[str, bool], told: Collection[str], learnt: Learnt) -> Finding:
    """By which keys the node matches: keyword -> whether it did. `told` are those that come back."""
    ignored = [key for key, does_match in tried.items() if not does_match]
    learnt.ignored += ignored
    if not tried:
        return Finding(check="matching", ok=None, words="nothing was found to match by")
    if ignored:
        words, facts = f"does not match by {', '.join(ignored)}", {"ignored": ignored}
        untold = [key for key in ignored if key not in told]
        advice = "They are matched here" if not untold else f"Nothing can be chosen by {', '.join(untold)}"
        return Finding(check="matching", ok=False, words=words, advice=advice, facts=facts)
    return Finding(check="matching", ok=True, words=f"matches by {', '.join(tried)}")


def lists_finding(came: int, learnt: Learnt) -> Finding:
    """Whether a list of two UIDs finds both."""
    if came == 2:
        return Finding(check="uid lists", ok=True, words="a list of two UIDs finds both")
    learnt.flags.append("no-uid-lists")
    return Finding(check="uid lists", ok=False, words=f"a list of two UIDs finds {came}",
                   advice="They are asked for one by one")


def limit_finding(lengths: Sequence[int], cut: Sequence[int], learnt: Learnt) -> Finding:
    """Whether a list met a limit, by the peer's own word or by its round length. `cut` are those of its own word."""
    if cut:
        learnt.limit = max(cut) or None
        return Finding(check="limit", ok=False, words=f"a list was cut after {max(cut)}",
                       advice="Lists that long are asked for in parts", facts={"limit": max(cut)})
    longest = max(lengths, default=0)
    if is_suspicious(longest):
        return Finding(check="limit", ok=None, words=f"a list of just {longest} may have been cut")
    return Finding(check="limit", ok=True, words=f"none was met; the longest list had {longest}")


def text_finding(text: Text, learnt: Learnt) -> Finding:
    """Which character sets the answers name, and whether they had better."""
    if text.is_unnamed:
        learnt.charset = "ISO_IR 100"
        return Finding(check="character set", ok=False, words="text beyond ASCII comes without a character set",
                       advice="Set charset to what it is; what is proposed is only the most usual one")
    terms = sorted(text.named)
    words = f"names {', '.join(terms)}" if terms else "names none, and needs none so far"
    return Finding(check="character set", ok=True, words=words, facts={"character_sets": terms})


def registration(ae_title: str, host: str, port: int, *, with_tls: bool) -> str:
    """What the administrator of the node must register, in words to send to them. `with_tls`: how we take C-MOVE."""
    words = f"{port}, with TLS" if with_tls else f"{port}"
    return (
        f"Please register this node, so that it may query you, retrieve from you and be a destination of C-MOVE:\n"
        f"  AE title {ae_title}\n  host     {host}\n  port     {words}\n"
        f"For C-MOVE your node must be able to connect to that port; for C-GET it need not."
    )
