"""What an evaluation of several futures says: how near the best one comes, and whether guesses come as near."""

from __future__ import annotations

from flowlib.tasks.protocol import Results
from flowlib.tasks.trajectories.summary import summarise as summarise_trajectories
from flowlib.tasks.trajectories.summary import told_apart


def summarise(results: Results) -> list[str]:
    """The best of the futures beside that of the best of the others; then what is said of the likeliest one."""
    if not results.has("min_ade"):
        return summarise_trajectories(results)
    main, best = results.main, results.best_baseline("min_ade")
    own = results.estimate(main, "min_ade").mean
    several = results.estimate(main, "diversity").mean > 0
    what = f"The best of the futures that “{main}” gives" if several else f"The one future that “{main}” gives"
    said = f"{what} is {own:.2f} px from the truth"
    if best is None:
        return [f"{said}.", *summarise_trajectories(results)]
    difference = results.difference(main, best, "min_ade")
    theirs = results.estimate(best, "min_ade").mean
    word = "nearer than" if difference.mean < 0 else "not nearer than"
    said += f", {word} that of the best of the others, “{best}” ({theirs:.2f} px); {told_apart(difference)}."
    alone = ["Of the likeliest future alone:"] if several else []
    return [said, *alone, *summarise_trajectories(results)]
