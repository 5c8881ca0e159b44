"""Report content for tests of the page and of the tables."""

from cnnrnn.evaluation import branch_ablation, class_scores, confidence_intervals, html_report

CHARTS = ("confusion", "reliability", "top1_by_class", "top5_by_class", "curves/phase1")


def report_content(
    top1: float, ablated: tuple[float, ...], names=("a", "b"), support=500
) -> html_report.ReportContent:
    """Content with the top-1 accuracy as trained and under the four ablations."""
    interval = confidence_intervals.Interval
    zero = interval(0.0, -0.01, 0.01)
    ablations = [branch_ablation.Ablation("as trained", 1.0, top1, 0.95, zero, zero)]
    names_of = [
        name
        for branch in branch_ablation.BRANCHES
        for name in (branch_ablation.permuted_name(branch), f"{branch} replaced by its mean")
    ]
    for name, value in zip(names_of, ablated, strict=True):
        drop = interval(top1 - value, top1 - value - 0.01, top1 - value + 0.01)
        ablations.append(branch_ablation.Ablation(name, 1.0, value, 0.95, drop, zero))
    image = {
        "jpeg": b"x",
        "path": "x/<i>.png",
        "true": "<b>&",
        "predicted": names[1],
        "confidence": 0.9,
    }
    return html_report.ReportContent(
        title="<script>alert(1)</script>",
        subtitle="of a test",
        loss=interval(1.0, 0.9, 1.1),
        top1=interval(top1, top1 - 0.02, top1 + 0.02),
        top5=interval(0.95, 0.93, 0.97),
        chance=0.5,
        classes=[
            class_scores.ClassScore(name, support, float("nan"), 0.5, 0.5, 1.0) for name in names
        ],
        macro=class_scores.MacroScores(
            len(names), interval(0.7, 0.65, 0.74), interval(0.9, 0.85, 0.94), 0.6, 0.62
        ),
        confusions=[
            {"true": "a", "predicted": "b", "count": 3, "of": 5, "images": [image]},
        ],
        mistakes=[image],
        calibration_error=0.05,
        bins=[class_scores.Bin(0.9, 1.0, 5, 0.95, 0.9)],
        cnn=branch_ablation.OutputStatistics(mean=0.4, mean_abs=0.4, std=0.3),
        rnn=branch_ablation.OutputStatistics(mean=0.88, mean_abs=0.88, std=0.005),
        ablations=ablations,
        charts={name: b"png" for name in CHARTS},
        manifest={"phase1": {"python": "3.11"}},
    )
