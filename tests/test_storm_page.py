"""The report as a page: whole, self-contained, and nothing that a log says becomes markup."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from storm_story import FACTS, Story, calm, stopped_and_back

from lightning_chaos.storm.page import headline, render, seconds, size
from lightning_chaos.storm.verdict import Failure

VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = '<script>alert("1")</script>&"\''


class Page(HTMLParser):
    """Reads a page, holds it to balanced tags, and keeps its text and its tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    @property
    def text(self) -> str:
        """Everything but markup."""
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def page_of(story: Story) -> Page:
    return Page(render(story.figures()))


def test_the_page_tells_the_storm() -> None:
    text = page_of(stopped_and_back()).text
    assert "The run lived through its one fault." in text
    assert "3 nodes trained to the end and hold the same state" in text
    assert "frozen: c: silent; c stopped by SIGSTOP" in text
    assert "lightning-chaos storm --seed 7" in text
    assert "1.00 s 1.10 s" in text, "detect and view of the stop"


def test_the_page_needs_nothing_from_elsewhere() -> None:
    html = render(stopped_and_back().figures())
    page = Page(html)
    assert "script" not in page.tags
    assert all(address.startswith("#") for address in page.addresses)
    assert "url(" not in html
    assert "@import" not in html
    assert len(html) < 100_000


def test_the_page_of_a_storm_that_told_nothing_is_whole() -> None:
    text = page_of(Story(facts=replace(FACTS, founders=(), planned=3))).text
    assert "The run did not keep its promises." in text
    assert "No fault was carried out." in text
    assert "Nobody waited." in text
    assert "No node was started." in text


def test_names_and_reasons_of_logs_never_become_markup() -> None:
    story = calm(f"a {HOSTILE}")
    story.rounds(0.0, 3.0, 3, f"a {HOSTILE}")
    story.do(3.0, "stop", hit=HOSTILE, part="both")
    story.tell(4.1, "a", "freeze", epoch=4, seconds=1.0, reason=HOSTILE, redone=True)
    story.view(4.1, 4, "a/1", HOSTILE)
    story.rounds(4.2, 12.0, 4, "a")
    story.exit(5.0, HOSTILE, 1, f"said {HOSTILE}")
    story.facts = replace(
        story.facts, command=HOSTILE, ending=HOSTILE, carried=(("a", HOSTILE, 5), (HOSTILE, "a", 7))
    )
    html = render(story.figures())
    page = Page(html)
    assert "<script>" not in html
    assert "script" not in page.tags
    assert f"said {HOSTILE}" in page.text


def test_huge_names_do_not_tear_the_picture() -> None:
    long = "n" * 500
    story = calm(f"a {long}")
    story.rounds(0.0, 12.0, 3, f"a {long}")
    story.do(3.0, "cut", a="a", b=long, how="silent")
    html = render(story.figures())
    picture = html[html.index("<svg") : html.index("</svg>")]
    shown = [part.partition("<")[0] for part in picture.split(">")]
    titles = [part.partition("<")[0] for part in picture.split("<title>")[1:]]
    assert any(long in title for title in titles)
    assert all(len(text) < 40 for text in shown if text not in titles)


def test_a_failure_comes_with_the_lines_that_show_it() -> None:
    figures = stopped_and_back().figures()
    failure = Failure("c ended with exit code 1", 9.0, 1, ("9.00 s  end reason=<lost>",))
    verdict = replace(figures.verdict, passed=False, failures=(failure,), survived=0)
    figures = replace(figures, verdict=verdict)
    page = Page(render(figures))
    assert headline(figures) == "The run did not live through 1 of 1 faults."
    assert "c ended with exit code 1 (fault 1)" in page.text
    assert "end reason=<lost>" in page.text


def test_a_storm_that_was_over_early_says_why_and_how_far_it_came() -> None:
    story = stopped_and_back()
    facts = replace(story.facts, planned=33, ending="training came to its end")
    story.facts = replace(facts, over=FACTS.began + 130.0)
    assert headline(story.figures()) == (
        "The run lived through its one fault. Training came to its end after 2:10, 1 of 33 faults "
        "carried out."
    )


def test_times_and_sizes_are_for_people() -> None:
    assert [seconds(x) for x in (None, 0.0423, 0.9996, 3.14159, 312.4)] == [
        "—",
        "42 ms",
        "1.00 s",
        "3.14 s",
        "312 s",
    ]
    assert [size(n) for n in (0, 999_999, 12_345_678, 3_200_000_000)] == [
        "0 kB",
        "1000 kB",
        "12.3 MB",
        "3.20 GB",
    ]
