"""A report as one HTML page that stands alone: no script, no font and no picture from elsewhere."""

from __future__ import annotations

import base64
import json
from html import escape

from flowlib.evaluation import charts, tables
from flowlib.evaluation.comparison import Comparison
from flowlib.evaluation.measures import BY_NAME, GROUPS, MEASURES, Measure
from flowlib.evaluation.participants import introduce
from flowlib.evaluation.pictures import ClipPictures, PredictorPictures
from flowlib.evaluation.statistics import nan_mean
from flowlib.evaluation.verdict import sentences

_KEY = (
    "<span class='key' style='background:#56b4e9'></span>truly, "
    "<span class='key' style='background:#ff942c'></span>as predicted"
)
IN_FIGURES = ("ade", "average_pts_within_thresh", "psnr_all")

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1d2330; --soft: #5b6270; --line: #e3e6ec; --ground: #f4f6f9; --card: #fff; --main: #0072b2; --tint: #eef6fb;
  --alarm: #fff6f2; --best: #009e73;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ef; --soft: #a3abba; --line: #343b48; --ground: #14171d; --card: #1c2129; --main: #6cb8ea;
    --tint: #1e3140; --alarm: #3a241c; --best: #3ecfa1;
  }
  figure svg, .swatch { filter: brightness(1.3); } /* drawn for white paper */
  figure svg text.soft { fill: #7e8590; }
}
figure svg .ground { fill: none; }
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Helvetica, Arial, sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 2.2rem 1.2rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.015em; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .5rem; }
h3 { font-size: 1.02rem; margin: 1.5rem 0 .4rem; } .card h3 { margin-top: .2rem; }
p { margin: .4rem 0 .8rem; max-width: 86ch; }
.soft, figcaption, small { color: var(--soft); }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1.1rem 1.3rem;
  margin: 1rem 0;
}
.verdict { border-left: 5px solid var(--main); font-size: 1.06rem; }
.verdict p:last-child { margin-bottom: 0; } .verdict p:first-child { font-weight: 650; }
.warning { border-left: 5px solid #c4320a; background: var(--alarm); }
.facts { display: flex; flex-wrap: wrap; gap: .5rem; margin: .9rem 0 0; padding: 0; list-style: none; }
.facts li {
  background: var(--card); border: 1px solid var(--line); border-radius: 99px; padding: .15rem .8rem;
  font-size: .9rem; color: var(--soft);
}
figure { margin: 0; } figure svg { display: block; width: 100%; height: auto; }
.two figure.card { margin: 0; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)); gap: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal; }
td small { display: block; font-size: .74rem; line-height: 1.2; }
tr.main td { font-weight: 650; background: var(--tint); } tr.main td small { font-weight: 400; }
tr.ceiling td { font-style: italic; color: var(--soft); }
td.best { box-shadow: inset 0 -2px 0 var(--best); }
.named { white-space: nowrap; }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em; }
.strip {
  display: grid; grid-template-columns: 11.5rem repeat(3, minmax(0, 1fr)); gap: .45rem .7rem;
  align-items: center;
}
.strip .head { align-self: end;
  font-size: .88rem; color: var(--soft); border-top: 1px solid var(--line); padding-top: .5rem;
  margin-top: .3rem;
}
.strip img { width: 100%; display: block; border-radius: 6px; }
.strip .truth { align-self: start; }
.strip .name { font-size: .92rem; line-height: 1.3; } .strip .name b { color: var(--main); }
.swap { position: relative; } .swap img + img { position: absolute; inset: 0; opacity: 0; transition: opacity .12s; }
.swap:hover img + img { opacity: 1; }
.key {
  display: inline-block; width: 1.5em; height: .28em; border-radius: 2px; vertical-align: middle;
  margin: 0 .3em 0 .1em;
}
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: .4rem 0; font-size: .93rem; }
dt { font-weight: 600; } dd { margin: 0; color: var(--soft); }
summary { cursor: pointer; color: var(--soft); }
details table { margin-top: .6rem; }
details pre {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem; overflow: auto;
  font-size: .8rem;
}
@media (max-width: 700px) {
  .strip { grid-template-columns: repeat(3, minmax(0, 1fr)); }
.strip .name { grid-column: 1 / -1; margin-top: .5rem; }
  .strip .head:empty { display: none; }
  .two { grid-template-columns: 1fr; }
  figure.wide .drawing { overflow-x: auto; } figure.wide svg { width: 640px; } /* smaller, nobody could read it */
  dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem; }
  th:first-child, td:first-child { white-space: normal; min-width: 7.5rem; }
  .card { padding: .9rem .8rem; }
}
"""


def page(report: Comparison) -> str:
    """The whole page."""
    title = f"How well does “{report.main}” foresee motion?"
    verdict = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences(report))
    parts = [
        f"<h1>{escape(title)}</h1>",
        "<p class='soft'>A predictor gets one or two pictures of a video and says where every pixel will go in the "
        "frames that follow. Here its answers are held against what happened. The “truth” are the dataset's tracks: "
        "what a tracker saw when it was shown all frames (exact only for rendered clips). Points that it lost, or that "
        "are hidden, are not counted.</p>",
        _facts(report),
        *(f"<div class='card warning'><p><b>Read with care.</b> {escape(text)}</p></div>" for text in report.warnings),
        f"<h2>In short</h2><div class='card verdict'>{verdict}</div>",
        _participants(report),
        _side_by_side(report),
        _horizon(report),
        _per_video(report),
        _clips(report),
        _all_numbers(report),
        _meanings(report),
        _provenance(report),
    ]
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _facts(report: Comparison) -> str:
    data = report.run.get("data", {})
    size = "×".join(map(str, reversed(data.get("size", [])))) or "–"
    facts = [
        f"{len(report.videos)} {'video' if len(report.videos) == 1 else 'videos'}",
        f"{data.get('clips')} clips",
        f"{data.get('num_frames')} frames each, {size} pixels",
        f"split: {data.get('split') or '–'}",
        f"{_visible(report):.0%} of the points can be seen" if _visible(report) == _visible(report) else "",
        f"data {data.get('fingerprint', '')[:8] or '–'}",
        report.run.get("time", ""),
    ]
    return "<ul class='facts'>" + "".join(f"<li>{escape(str(fact))}</li>" for fact in facts if fact) + "</ul>"


def _visible(report: Comparison) -> float:
    """Mean over videos of the share of points that are there to be measured."""
    return nan_mean(report.values(report.main, "visible"))


def _participants(report: Comparison) -> str:
    paint = charts.colours(report)
    listed = "".join(
        f"<dt><span class='swatch' style='background:{paint[name]}'></span>{escape(name)}</dt>"
        f"<dd>{escape(introduce(report, name))}</dd>"
        for name in report.predictors
    )
    return f"<h2>Who takes part</h2><div class='card'><dl>{listed}</dl></div>"


def _side_by_side(report: Comparison) -> str:
    text = f"Dots are means over videos. {report.interval_note('Bars')} What counts is the distance from the simple "
    text += "predictors on the same clips: a large error may only mean that much is moving."
    shown = [BY_NAME[name] for name in IN_FIGURES if name in report.measured]
    figures = [_figure(charts.overall(report, measure), measure.meaning) for measure in shown]
    if report.differences and "ade" in report.measured:
        caption = "How much further off than each of the others, on the same videos. A bar that crosses zero may be "
        caption += "chance."
        figures.append(_figure(charts.differences(report, BY_NAME["ade"]), caption))
    return f"<h2>Side by side</h2><p>{escape(text)}</p><div class='two'>{''.join(figures)}</div>"


def _horizon(report: Comparison) -> str:
    if not report.frames_ahead():
        return ""
    text = "The further ahead, the harder. Bands are intervals, of the predictor in question and of the best other one."
    caption = "Mean distance between predicted and true place of the visible points, in pixels."
    steps = [Measure(f"epe_{f}", f"{f} ahead", "low", 2, "", "") for f in report.frames_ahead()]
    numbers = f"<details><summary>The numbers</summary><div class='scroll'>{_table(report, steps)}</div></details>"
    figure = _figure(charts.horizon(report), caption, numbers, wide=True)
    return f"<h2>Error against frames ahead</h2><p>{text}</p>{figure}"


def _per_video(report: Comparison) -> str:
    if len(report.videos) < 2 or "ade" not in report.measured:
        return ""
    text = "A mean can hide a video on which all fails. Every dot is one predictor on one video, the hardest on top."
    figure = _figure(charts.videos(report, BY_NAME["ade"]), _legend(report), wide=True)
    return f"<h2>Video by video</h2><p>{text}</p>{figure}"


def _clips(report: Comparison) -> str:
    if not report.pictures:
        return ""
    text = (
        "The clip on which the predictor in question errs least, the one in the middle, and the one on which it errs "
        "most (of those whose points can mostly be seen). <b>Paths</b>: where points go, drawn on the first picture: "
        f"{_KEY}; dots mark the end. <b>Rebuilt</b>: the last frame, made by moving the first picture's pixels; grey "
        "is where nothing went, and the first picture stands in there when it is compared. Point at it to see the true "
        "frame. "
        "<b>Off by</b>: white is right, dark red is wrong. Below each name: its mean error on this clip, and the PSNR "
        "of the frame it rebuilds."
    )
    clips = "".join(_clip(clip, report) for clip in report.pictures)
    return f"<h2>Best, median and worst clip</h2><p>{text}</p>{clips}"


def _clip(clip: ClipPictures, report: Comparison) -> str:
    last = _image(clip.last, f"true frame {clip.frame}") if clip.last else "<small>no later frame is stored</small>"
    captions = ("the first picture, with true paths", f"frame {clip.frame}, as it was", "the first picture")
    pictures = (_image(clip.paths, captions[0]), last, _image(clip.first, captions[2]))
    truth = [f"<div class='truth'>{picture}<small>{text}</small></div>" for picture, text in zip(pictures, captions)]
    heads = [f"<div class='head'>{text}</div>" for text in ("", "Paths", f"Rebuilt frame {clip.frame}", "Off by")]
    seen = f"{clip.visible:.0%} of its points can be seen" if clip.visible == clip.visible else "it has no points"
    where = f", {clip.where}" if clip.where else f", clip {clip.clip}"
    rows = ["<div class='name'>the truth</div>", *truth, *heads]
    rows += [_strip(shown, clip, report) for shown in clip.predictors]
    return (
        f"<div class='card' title='clip {escape(clip.clip, quote=True)}'><h3>{escape(clip.title)}: "
        f"<span class='soft'>{escape(clip.video + where)}; {seen}</span></h3>"
        f"<div class='strip'>{''.join(rows)}</div></div>"
    )


def _strip(shown: PredictorPictures, clip: ClipPictures, report: Comparison) -> str:
    name = f"<b>{escape(shown.name)}</b>" if shown.name == report.main else escape(shown.name)
    psnr = "" if shown.psnr != shown.psnr else f", {shown.psnr:.1f} dB"
    dot = f"<span class='swatch' style='background:{charts.colours(report)[shown.name]}'></span>"
    cells = [f"<div class='name'>{dot}{name}<br><small>{shown.ade:.2f} px{psnr}</small></div>"]
    cells.append(f"<div>{_image(shown.paths, f'paths by {shown.name}')}</div>")
    if shown.rebuilt is None or clip.last is None:
        return "".join([*cells, "<div><small>not predicted or not stored</small></div><div></div>"])
    both = _image(shown.rebuilt, f"rebuilt by {shown.name}") + _image(clip.last, "true frame")
    return "".join([*cells, f"<div class='swap'>{both}</div><div>{_image(shown.difference, 'difference')}</div>"])


def _all_numbers(report: Comparison) -> str:
    parts = ["<h2>All numbers</h2><p>The best value of each column, the ceiling aside, is underlined in green. "]
    parts.append(f"{escape(report.left_out_note())}</p>")
    for group in GROUPS:
        measures = [m for m in MEASURES if m.group == group and m.name in report.measured]
        if measures:
            parts.append(f"<h3>{group}</h3><div class='card scroll'>{_table(report, measures)}</div>")
    if "lpips_all" not in report.measured and "psnr_all" in report.measured:
        told = "LPIPS was not measured: the weights of its network were left out (lpips_weights)."
        parts.append(f"<p class='soft'>{told}</p>")
    return "".join(parts)


def _table(report: Comparison, measures: list[Measure]) -> str:
    head = "".join(f"<th title='{escape(m.meaning, quote=True)}'>{escape(m.label)} {m.arrow}</th>" for m in measures)
    best = {m.name: _best(report, m) for m in measures}
    rows = []
    for name in report.predictors:
        kind = "main" if name == report.main else "ceiling" if report.is_ceiling(name) else ""
        cells = []
        for measure in measures:
            value = report.overall[name][measure.name]
            interval = ""
            if value.has_interval:
                interval = f"<small>{measure.show(value.low)} … {measure.show(value.high)}</small>"
            mark = " class='best'" if name in best[measure.name] else ""
            told = f"mean of {value.videos} videos" + f", {value.left_out} left out" * bool(value.left_out)
            cells.append(f"<td{mark} title='{told}'>{measure.show(value.mean)}{interval}</td>")
        rows.append(f"<tr class='{kind}'><td>{escape(name)}</td>{''.join(cells)}</tr>")
    return f"<table><thead><tr><th>predictor</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _best(report: Comparison, measure: Measure) -> list[str]:
    """Who has the best value as it is shown; several share it."""
    shown = [name for name in report.predictors if not report.is_ceiling(name)]
    values = {name: report.overall[name][measure.name].mean for name in shown}
    known = {name: value for name, value in values.items() if value == value}
    least = min(known.values(), key=measure.rank, default=None)
    return [name for name, value in known.items() if measure.show(value) == measure.show(least)]


def _meanings(report: Comparison) -> str:
    used = [m for m in MEASURES if m.name in report.measured]
    listed = "".join(f"<dt>{escape(m.label)} {m.arrow}</dt><dd>{escape(m.meaning)}</dd>" for m in used)
    arrows = "↑ higher is better, ↓ lower is better, →0 best when it is 0."
    return f"<h2>What the words mean</h2><div class='card'><p>{arrows}</p><dl>{listed}</dl></div>"


def _provenance(report: Comparison) -> str:
    lines = tables.provenance(report).replace("- ", "", 1).split("\n- ")
    pairs = [line.partition(": ")[::2] for line in lines]
    facts = "".join(f"<dt>{escape(what)}</dt><dd>{escape(value)}</dd>" for what, value in pairs)
    told = escape(json.dumps(report.run, indent=1, default=str))
    more = f"<details><summary>The whole record</summary><pre>{told}</pre></details>"
    return f"<h2>What made these numbers</h2><div class='card'><dl>{facts}</dl></div>{more}"


def _legend(report: Comparison) -> str:
    paint = charts.colours(report)
    return " &nbsp; ".join(
        f"<span class='named'><span class='swatch' style='background:{paint[name]}'></span>{escape(name)}</span>"
        for name in report.predictors
    )


def _figure(svg: str, caption: str, more: str = "", *, wide: bool = False) -> str:
    caption = caption if caption.startswith("<") else escape(caption)
    drawing = f"<div class='drawing'>{svg}</div><figcaption><small>{caption}</small></figcaption>"
    return f"<figure class='card{' wide' * wide}'>{drawing}{more}</figure>"


def _image(jpeg: bytes | None, alt: str) -> str:
    data = base64.b64encode(jpeg or b"").decode()
    return f"<img alt='{escape(alt, quote=True)}' src='data:image/jpeg;base64,{data}'>"
