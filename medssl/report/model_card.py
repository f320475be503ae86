"""The model card of an arm as Markdown, with the sections of Mitchell et al. 2019 (1810.03993): one for each pretrained encoder."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from medssl.evaluation.answer import cautions
from medssl.models.encoder_file import EncoderCard
from medssl.report import markdown as md
from medssl.report import model_card_numbers as numbers
from medssl.report.facts import ArmFacts, Facts


def model_card(
    arm: str,
    facts: Facts,
    comparison: pd.DataFrame,
    pairs: pd.DataFrame | None = None,
    subgroups: pd.DataFrame | None = None,
    encoder: EncoderCard | None = None,
) -> str:
    """The card of one arm, in Markdown that names no folder and no patient.

    Args:
        arm: one of `facts.arms`; its rows of the comparison are shown.
        facts, comparison: as for `page.render`.
        pairs, subgroups: as in `Extras`.
        encoder: the content of its encoder.json; None: the card says only what the facts know.

    Raises:
        ValueError: the facts or the comparison do not know the arm.
    """
    own = next((each for each in facts.arms if each.name == arm), None)
    if own is None or arm not in set(comparison["arm"]):
        raise ValueError(f"model card: '{arm}' is no arm of the facts and of the comparison")
    parts = [
        f"# Model card: {md.plain(arm)}, {md.plain(facts.study)}",
        *_warnings(facts),
        _section("Model details", _details(own, facts, encoder)),
        _section("Intended use", _use(facts)),
        _section("Out of scope", _out_of_scope(facts)),
        _section("Data", _data(facts)),
        _section("Training", _training(facts, own, encoder)),
        _section("Metrics", numbers.metrics(arm, facts, comparison, pairs, _task(facts))),
        _section("Subgroups", numbers.subgroups(arm, subgroups)),
        _section("Calibration", numbers.calibration(comparison[comparison["arm"] == arm])),
        _section("Limits", _limits(own, facts, comparison)),
        _section("Ethical considerations", _ethics(facts)),
        _section("How to load", _loading(arm)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _warnings(facts: Facts) -> Iterator[str]:
    if facts.synthetic:
        yield "> **Synthetic data.** The images are made, not of patients: the numbers say nothing about medicine."
    if facts.transductive:
        yield "> **Transductive.** Pretraining saw the images, not the labels, of the test patients. For new patients expect less."


def _details(arm: ArmFacts, facts: Facts, encoder: EncoderCard | None) -> str:
    rows = {
        "kind": "image encoder: one grey or colour image in, one vector out; no classifier is part of it",
        "starts from": f"{arm.init}{f' ({arm.weights})' if arm.weights else ''}",
        "pretrained with": arm.method or "not pretrained by this study",
        **facts.encoder,
    }
    if encoder is not None:
        rows |= {
            "backbone": f"{encoder.backbone}, {encoder.stem} stem",
            "features": f"{encoder.feature_dim:,}",
            "input": f"{encoder.input_size} px, {encoder.preprocessing.channels}",
            "weights, sha256": encoder.weights_sha256 or "unknown",
            "made with": f"medssl {encoder.medssl_version}",
        }
    return md.pairs(rows)


def _use(facts: Facts) -> str:
    return (
        f"A starting point for models on images like those of the data below, and for research on them. It was judged on one task: "
        f"{_task(facts)}. Features can be used as they are (linear probe, nearest neighbours) or the weights fine-tuned."
    )


def _out_of_scope(facts: Facts) -> str:
    return md.bullets(
        [
            "Diagnosis, triage or any other decision about a patient. It is no medical device; nothing here was tested for that.",
            "Other modalities, body parts, devices or populations than those of the data, without a test on them.",
            "Finding out who a patient is.",
        ]
    )


def _data(facts: Facts) -> str:
    rows = []
    for split in facts.splits:
        positives = "–" if split.positives is None else f"{split.positives:,}"
        rows.append((md.plain(split.name), f"{split.patients:,}", f"{split.images:,}", positives))
    parts = [md.plain(facts.splitting), md.table(("split", "patients", "images", "positive"), rows, numbers=(1, 2, 3))]
    if left_out := [f"{name}: {count:,}" for name, count in facts.exclusions.items() if count]:
        parts += ["Left out:", md.bullets(left_out)]
    return "\n\n".join(parts)


def _training(facts: Facts, arm: ArmFacts, encoder: EncoderCard | None) -> str:
    if arm.method is None:
        return "The encoder was not trained by this study: its weights are those that it starts from."
    rows: dict[str, str] = {"method": arm.method}
    rows |= {"epochs": f"{arm.epochs:,}"} if arm.epochs is not None else {}
    rows |= {"samples seen": f"{arm.samples_seen:,}"} if arm.samples_seen is not None else {}
    rows |= {"related images": arm.pairs} if arm.pairs else {}
    rows |= {"collapse monitor": arm.verdict} if arm.verdict else {}
    if encoder is not None:
        rows |= {"seed": str(encoder.seed), "hash of the images": encoder.data_digest or "unknown"}
        rows |= {"hash of what was kept out": encoder.excluded_digest or "none"}
    text = (
        "Without labels. Images of validation and test patients were kept out of it."
        if not facts.transductive
        else "Without labels."
    )
    late = " It had not converged." if arm.name in facts.unconverged else ""
    return f"{text}{late}\n\n{md.pairs(rows | dict(facts.pretraining))}"


def _limits(arm: ArmFacts, facts: Facts, comparison: pd.DataFrame) -> str:
    return md.bullets([*_start(arm, facts), *cautions(comparison, facts.pretrained, facts.unconverged), *facts.notes])


def _start(arm: ArmFacts, facts: Facts) -> list[str]:
    """What the weights that it starts from have seen, as far as the facts know."""
    if arm.init == "random":
        return []
    told = [text.removeprefix(f"{arm.name}: ") for text in facts.about_arms if text.startswith(f"{arm.name}: ")]
    known = [f"The weights that it starts from ({arm.init}): {text}" for text in told]
    return known or [f"What the initial weights ({arm.init}) were trained on is not known to this study."]


def _ethics(facts: Facts) -> str:
    return md.bullets(
        [
            "The encoder was made from images of patients. Neither it nor this card holds images, names or identifiers of them; "
            "whether images can be rebuilt from the weights was not tested, so pass them on under the rules of the data.",
            "It may have learnt who was imaged where, by which device and why. Differences between groups of patients that the "
            "labels or the archive carry are carried on.",
            "Check it on your own patients, group by group, before anything depends on it.",
        ]
    )


def _loading(arm: str) -> str:
    return (
        "```python\nimport medssl\n\n"
        f'encoder = medssl.load_encoder("pretrain/{arm}/encoder")  # in the work folder, or wherever its two files were put\n'
        'features = encoder.features(["image.dcm"])  # (1, D) NumPy array\n```'
    )


def _task(facts: Facts) -> str:
    return {
        "binary": f"{md.plain(facts.target)}, positive class {md.plain(facts.positive_class)}",
        "regression": f"the value of {md.plain(facts.target)}",
    }.get(facts.kind, f"{md.plain(facts.target)} ({facts.kind}: {md.plain(', '.join(facts.names))})")


def _section(heading: str, text: str) -> str:
    return f"## {heading}\n\n{text}" if text else ""
