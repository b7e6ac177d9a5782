"""How far a prediction is from the truth: points, visibility, fields and rebuilt frames.

Pure functions, NumPy arrays in, numbers out; nothing is read, cached or drawn. What can't be measured (no visible
point, no pixel in the mask) is NaN, never zero. Knows nothing of models, datasets or reports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from flowlib.tracks import Tracks
from flowlib.weight_files import read_weights

THRESHOLDS = (1, 2, 4, 8, 16)  # pixels; TAP-Vid (Doersch et al. 2022), section 4
SSIM_SIDE, LPIPS_SIDE = 6, 31  # pixels; the least that SSIM's window and AlexNet's poolings fit into
MISS_DISTANCE = 8.0  # pixels; beyond it a point at the end of the clip counts as lost
QueryMode = Literal["first", "strided"]


def tapvid_metrics(true: Tracks, predicted: Tracks, query_mode: QueryMode = "first") -> dict[str, float]:
    """Occlusion accuracy, position accuracy and Jaccard of one video, as TAP-Vid defines them.

    The benchmark's figures are on videos of 256×256; resize both tracks to that to compare with published ones.

    Args:
        true: the ground truth; its `queries` say in which frame each point was asked for.
        predicted: the same points in the same frames.
        query_mode: "first" measures the frames after the query's, "strided" all but the query's.

    Returns:
        `occlusion_accuracy`, `pts_within_{1,2,4,8,16}` and `jaccard_{…}` (pixels), `average_pts_within_thresh`
        (δ_avg) and `average_jaccard` (AJ), all from 0 to 1; NaN where no frame of any point is measured.

    Raises:
        ValueError: tracks of different shapes, or an unknown query mode.

    >>> still = Tracks.still(np.array([[0, 3.0, 4.0]]), num_frames=8)
    >>> tapvid_metrics(still, still)["average_jaccard"]
    1.0
    """
    _check_same("predicted", predicted.tracks, true.tracks)
    measured = _measured_frames(true.queries[:, 0], true.num_frames, query_mode)
    seen, claimed = true.visibility & measured, predicted.visibility & measured
    squared = np.square(predicted.tracks - true.tracks).sum(axis=-1)
    agreement = (true.visibility == predicted.visibility) & measured
    result = {"occlusion_accuracy": _ratio(agreement.sum(), measured.sum())}
    for threshold in THRESHOLDS:
        near = squared < threshold**2
        hits = (near & seen & claimed).sum()
        false_alarms = (claimed & ~(near & seen)).sum()
        result[f"pts_within_{threshold}"] = _ratio((near & seen).sum(), seen.sum())
        result[f"jaccard_{threshold}"] = _ratio(hits, seen.sum() + false_alarms)
    result["average_pts_within_thresh"] = float(np.mean([result[f"pts_within_{t}"] for t in THRESHOLDS]))
    result["average_jaccard"] = float(np.mean([result[f"jaccard_{t}"] for t in THRESHOLDS]))
    return result


def _measured_frames(query_frames: np.ndarray, num_frames: int, query_mode: str) -> np.ndarray:
    frames, asked = np.arange(num_frames)[:, None], np.round(query_frames).astype(int)[None]
    if query_mode == "first":
        return frames > asked  # S N
    if query_mode == "strided":
        return frames != asked
    raise ValueError(f"query_mode: expected 'first' or 'strided', got {query_mode!r}")


def displacement_metrics(
    true: np.ndarray, predicted: np.ndarray, visible: np.ndarray, *, miss_distance: float = MISS_DISTANCE
) -> dict[str, float]:
    """Errors of a prediction over the frames after frame 0, on the points that are truly visible.

    Args:
        true, predicted: [S N 2] positions or displacements in pixels, frame 0 being the query's.
        visible: bool [S N], the truth.
        miss_distance: pixels beyond which a point of the last frame is missed.

    Returns:
        `ade` mean error over all frames (px), `fde` in the last frame (px), `miss_rate` (0 to 1), `mse` mean squared
        error of a coordinate (px², as `torch.nn.MSELoss` counts it), and `mse_last` the same in the last frame.

    >>> true = np.zeros((3, 1, 2))
    >>> predicted = true + np.array([0, 3, 6]).reshape(3, 1, 1) * [0.6, 0.8]
    >>> found = displacement_metrics(true, predicted, np.ones((3, 1), bool))
    >>> round(found["ade"], 3), round(found["fde"], 3)
    (4.5, 6.0)
    """
    errors = point_errors(true, predicted, visible)[1:]
    squares = np.square(np.asarray(predicted, np.float64) - true)[1:].mean(axis=-1)
    seen, last = np.asarray(visible)[1:], np.asarray(visible)[-1]
    return {
        "ade": _mean(errors[seen]),
        "fde": _mean(errors[-1][last]),
        "miss_rate": _mean(errors[-1][last] > miss_distance),
        "mse": _mean(squares[seen]),
        "mse_last": _mean(squares[-1][last]),
    }


def motion_classes(
    displacement: np.ndarray, xy: np.ndarray, visible: np.ndarray, *, moving: float = 1.0, tolerance: float = 0.2
) -> np.ndarray:
    """How each point moves: 0 hardly, 1 with the camera, 2 on its own; int [N], -1 where it can't be told.

    The camera's motion is the affine one that most moving points follow in the last frame: least squares, weighted anew
    in each of six rounds by how well a point agrees (Cauchy's weights at the median error). A point follows it if it is
    less than `tolerance` of its way, or a pixel, off. Where fewer than half of the points that move follow it there is
    no camera motion, and all that move do so on their own.

    Args:
        displacement: [N 2] pixels, in the frame that decides.
        xy: [N 2] where the points start.
        visible: bool [N], whether the displacement is known.
        moving: pixels from which on a point moves.
        tolerance: share of a point's way.
    """
    far = np.linalg.norm(displacement, axis=-1)
    classes = np.where(far > moving, 2, 0)
    moves = visible & (far > moving)
    if moves.sum() >= 6:  # twice the unknowns of an affine motion in one direction
        basis = np.column_stack([np.ones(len(xy)), xy - xy.mean(axis=0)])
        weight = moves.astype(float)
        off = far
        for _ in range(6):
            weighted = (basis * weight[:, None]).T
            square = weighted @ basis
            square += 1e-9 * np.trace(square) * np.eye(3)  # points on one line leave it open what happens beside it
            fitted = np.asarray(np.linalg.solve(square, weighted @ displacement), np.float64)  # 3 2
            off = np.linalg.norm(displacement - basis @ fitted, axis=-1)
            weight = moves / (1 + np.square(off / max(float(np.median(off[moves])), 0.05)))
        follows = moves & (off <= np.maximum(tolerance * far, 1.0))
        if 2 * follows.sum() >= moves.sum() and 2 * moves.sum() >= visible.sum():
            classes[follows] = 1
    return np.where(visible, classes, -1)


def epe_per_frame(true: np.ndarray, predicted: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Mean end-point error in pixels for each frame ahead, 1 to S-1, on visible points: float64 [S-1]."""
    errors = point_errors(true, predicted, visible)
    return np.array([_mean(errors[s][np.asarray(visible)[s]]) for s in range(1, len(errors))])


def point_errors(true: np.ndarray, predicted: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Distance in pixels between [S N 2] and [S N 2]: float64 [S N]; the door of all displacement errors.

    Raises:
        ValueError: shapes that do not belong together, fewer than two frames, or a prediction that isn't finite.
    """
    true, predicted, visible = np.asarray(true), np.asarray(predicted), np.asarray(visible)
    if true.ndim != 3 or true.shape[2] != 2 or len(true) < 2:
        raise ValueError(f"true: expected shape [S N 2] with 2 frames or more, got {list(true.shape)}")
    _check_same("predicted", predicted, true)
    if visible.shape != true.shape[:2] or visible.dtype != bool:
        raise ValueError(f"visible: expected bool {list(true.shape[:2])}, got {visible.dtype} {list(visible.shape)}")
    return np.linalg.norm(predicted.astype(np.float64) - true, axis=-1)


def min_ade(true: np.ndarray, samples: np.ndarray, visible: np.ndarray) -> dict[str, float]:
    """The best of K predictions, for each point on its own and for all points together.

    Args:
        true: [S N 2] pixels, frame 0 being the query's.
        samples: [K S N 2], K predictions of it.
        visible: bool [S N], the truth.

    Returns:
        `min_ade`: mean over points of the least ADE that one sample has for this point; points never seen after
        frame 0 do not count. `min_ade_joint`: the least mean over points that one sample has (never below `min_ade`).
        Both weigh every point alike, so with K = 1 they agree, but not with `ade`, which weighs every sighting alike.

    >>> true = np.zeros((2, 1, 2))
    >>> samples = np.stack([true, true + 5])
    >>> min_ade(true, samples, np.ones((2, 1), bool))["min_ade"]
    0.0
    """
    samples = np.asarray(samples)
    if samples.ndim != 4 or len(samples) == 0:
        raise ValueError(f"samples: expected shape [K S N 2] with K of 1 or more, got {list(samples.shape)}")
    errors = np.stack([point_errors(true, sample, visible)[1:] for sample in samples])  # K S-1 N
    seen = np.asarray(visible)[1:]
    counted = seen.any(axis=0)
    per_point = (errors * seen).sum(axis=1)[:, counted] / seen.sum(axis=0)[counted]  # K N
    if not counted.any():
        return {"min_ade": np.nan, "min_ade_joint": np.nan}
    return {"min_ade": float(per_point.min(axis=0).mean()), "min_ade_joint": float(per_point.mean(axis=1).min())}


def visibility_metrics(visible: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """How well visibility is told, over the frames after frame 0.

    Args:
        visible: bool [S N], the truth.
        logits: [S N], visible where positive; boolean predictions are welcome, too.

    Returns:
        `visibility_accuracy` (0 to 1) and `visibility_auroc`: the chance that a visible point has a higher logit than
        an invisible one, ties counting half; NaN if the truth has only one of the two.
    """
    visible, logits = np.asarray(visible), np.asarray(logits)
    if visible.dtype != bool or visible.ndim != 2 or visible.shape != logits.shape:
        got = f"{visible.dtype} {list(visible.shape)} and {list(logits.shape)}"
        raise ValueError(f"visible: expected bool [S N] and logits of the same shape, got {got}")
    truth, scores = visible[1:].ravel(), logits[1:].ravel()
    return {"visibility_accuracy": _mean((scores > 0) == truth), "visibility_auroc": auroc(truth, scores)}


def visible_share(visible: np.ndarray) -> float:
    """The share of all points of visible bool [S N] that are truly there to be measured, after frame 0: 0 to 1."""
    return _mean(np.asarray(visible)[1:])


def psnr(true: np.ndarray, rebuilt: np.ndarray) -> float:
    """Peak signal-to-noise ratio of a frame uint8 [H W 3] in dB; infinite for equal frames."""
    _check_frames(true, rebuilt, {})
    error = np.square(true.astype(np.float64) - rebuilt).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of `scores` [M] for `truth` bool [M], by the rank sum of Mann and Whitney.

    >>> auroc(np.array([False, False, True]), np.array([0.1, 0.4, 0.9]))
    1.0
    """
    from scipy.stats import rankdata  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    positives, negatives = int(truth.sum()), int((~truth).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    rank_sum = rankdata(scores)[truth].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def field_metrics(
    true: np.ndarray,
    predicted: np.ndarray,
    visible: np.ndarray | None = None,
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> dict[str, float]:
    """Is a predicted field as rough as the true one? Over-smoothness and artefacts, in one number and in parts.

    Args:
        true, predicted: [... 2 H W] displacement in pixels on one regular lattice.
        visible: bool [... H W]; only places whose point, right and lower neighbour are visible are measured. All if
            None.
        spacing: pixels from row to row and from column to column of the lattice.

    Returns:
        `roughness` (p - t) / (p + t) of the predicted (p) and the true (t) mean total variation, from -1 to 1: 0 is as
        rough as the truth, -1 perfectly flat, -1/3 half as rough, 1/3 twice as rough; `tv_ratio`, `divergence_ratio`,
        `curl_ratio`: mean absolute value of the predicted field's total variation, divergence and curl over the true
        one's, which has no upper bound; `divergence_error`, `curl_error`: mean absolute difference, pixels of
        displacement per pixel of distance. NaN where the truth has none, or nothing is measured.
    """
    true, predicted = np.asarray(true), np.asarray(predicted)
    _check_same("predicted", predicted, true)
    if true.ndim < 3 or true.shape[-3] != 2 or min(true.shape[-2:]) < 2:
        raise ValueError(f"true: expected shape [... 2 H W] with sides of 2 or more, got {list(true.shape)}")
    seen = np.ones((*true.shape[:-3], *true.shape[-2:]), bool) if visible is None else np.asarray(visible)
    if seen.dtype != bool or seen.shape != (*true.shape[:-3], *true.shape[-2:]):
        raise ValueError(f"visible: expected bool [... H W] to go with the field, got {seen.dtype} {list(seen.shape)}")
    counted = seen[..., :-1, :-1] & seen[..., 1:, :-1] & seen[..., :-1, 1:]
    truth, ours = (
        {name: values[counted] for name, values in _derivatives(field, spacing).items()} for field in (true, predicted)
    )
    size = {name: (_mean(np.abs(ours[name])), _mean(np.abs(truth[name]))) for name in truth}
    result = {"roughness": _ratio(size["tv"][0] - size["tv"][1], sum(size["tv"]))}
    result |= {f"{name}_ratio": _ratio(*pair) for name, pair in size.items()}
    return result | {f"{name}_error": _mean(np.abs(ours[name] - truth[name])) for name in ("divergence", "curl")}


def _derivatives(field: np.ndarray, spacing: tuple[float, float]) -> dict[str, np.ndarray]:
    """Total variation, divergence and curl by forward differences, each [... H-1 W-1]."""
    field = np.asarray(field, np.float64)
    along_x = np.diff(field, axis=-1)[..., :-1, :] / spacing[1]
    along_y = np.diff(field, axis=-2)[..., :, :-1] / spacing[0]
    return {
        "tv": np.sqrt((along_x**2 + along_y**2).sum(axis=-3)),
        "divergence": along_x[..., 0, :, :] + along_y[..., 1, :, :],
        "curl": along_x[..., 1, :, :] - along_y[..., 0, :, :],
    }


def grid_artefacts(field: np.ndarray, period: int = 8) -> float:
    """How much of a dense field's bending lies on one regular grid: 0 (none of it, beyond chance) to 1 (all of it).

    A network of stride `period` that upsamples badly bends its field in the same columns and rows again and again.
    Bending is the absolute second difference, summed along each column (and row). Columns that are `period` apart
    form a phase; a phase counts with the median of its columns, so that a single edge of an object, however sharp,
    makes no grid. A seam between two pixels bends the field on both its sides, so neighbouring phases are taken in
    pairs: returned is the share that the strongest pair has, rescaled so that an even spread over the phases is 0 and
    everything on one pair is 1, averaged over columns and rows. (A grid of half the period has two such pairs: 1/3.)

    Args:
        field: [... H W] with sides of two periods or more.
        period: pixels, 3 or more.

    Returns:
        From 0 to 1; NaN for a field without any bend (up to float32's rounding).
    """
    field = np.asarray(field, np.float64)
    if period < 3 or min(field.shape[-2:]) < 2 * period + 2:
        raise ValueError(f"period: expected 3 or more and sides of two periods, got {period} and {list(field.shape)}")
    rounding = 4 * np.finfo(np.float32).eps * np.abs(field).max()
    found = [_share_on_a_grid(np.diff(part, 2), period, rounding) for part in (field, field.swapaxes(-1, -2))]
    return _mean(np.array([share for share in found if share == share]))


def _share_on_a_grid(second_differences: np.ndarray, period: int, rounding: float) -> float:
    bends = np.abs(second_differences)
    columns = bends.mean(axis=tuple(range(bends.ndim - 1)))
    if columns.mean() <= rounding:
        return float("nan")
    phases = np.array([np.median(columns[phase::period]) for phase in range(period)])
    strongest = (phases + np.roll(phases, -1)).max()
    even = 2 / period
    return float(max(_ratio(strongest, phases.sum()) - even, 0) / (1 - even)) if phases.any() else 0.0


def frame_metrics(
    true: np.ndarray, rebuilt: np.ndarray, masks: dict[str, np.ndarray] | None = None, *, lpips: Lpips | None = None
) -> dict[str, float]:
    """PSNR, SSIM and, with its network at hand, LPIPS of one rebuilt frame; over everything and within masks.

    Args:
        true, rebuilt: uint8 [H W 3].
        masks: name -> bool [H W], for instance "covered" and "moving"; measured besides the whole frame ("all").
        lpips: from `Lpips(path)`; without it the result has no LPIPS.

    Returns:
        `psnr_all` (dB, infinite for equal frames), `ssim_all`, `lpips_all`, and the same for each mask. SSIM and LPIPS
        within a mask are means of their maps over its pixels; the maps look some pixels around each. NaN where a side
        is shorter than 6 pixels (SSIM) or 31 (LPIPS).
    """
    import torch
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    _check_frames(true, rebuilt, masks or {})
    # Strides of a batch whose channels lie innermost: SSIM's convolution takes a third of the time on a CPU.
    pair = [torch.tensor(np.ascontiguousarray(frame))[None].movedim(-1, 1).float() for frame in (rebuilt, true)]
    maps, side = {"ssim": np.full(true.shape[:2], np.nan)}, min(true.shape[:2])
    if side >= SSIM_SIDE:
        whole = structural_similarity_index_measure(pair[0], pair[1], data_range=255.0, return_full_image=True)[1]
        maps["ssim"] = whole.mean(dim=1)[0].numpy()
    if lpips:
        maps["lpips"] = lpips.map(true, rebuilt) if side >= LPIPS_SIDE else maps["ssim"] * np.nan
    result: dict[str, float] = {}
    for name, mask in {"all": np.ones(true.shape[:2], bool), **(masks or {})}.items():
        inside = [image[0][:, torch.tensor(mask)] for image in pair]
        result[f"psnr_{name}"] = float(peak_signal_noise_ratio(*inside, data_range=255.0)) if mask.any() else np.nan
        result |= {f"{kind}_{name}": _mean(values[mask]) for kind, values in maps.items()}
    return result | ({"lpips_all": lpips.distance(true, rebuilt)} if lpips and side >= LPIPS_SIDE else {})


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018, AlexNet, version 0.1) by torchmetrics, weights from a file.

    Nothing is downloaded: torchmetrics brings the heads, the file brings AlexNet's `features.*` (torchvision's own
    `alexnet` checkpoint, or the one of the LPIPS authors).

    Args:
        weights: the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not AlexNet's weights.
    """

    def __init__(self, weights: str | Path) -> None:
        from torchmetrics.functional.image.lpips import _LPIPS  # pyright: ignore[reportPrivateUsage] (the public class downloads AlexNet)

        path = Path(weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"LPIPS weights: no file {path}")
        state = read_weights(path)
        self.network = _LPIPS(pretrained=True, net="alex", pnet_rand=True, spatial=True).eval()
        own = dict(self.network.net.named_parameters())
        names = {name: "features." + name.split(".", 1)[1] for name in own}  # slice2.3.weight is features.3.weight
        missing = sorted(set(names.values()) - set(state))
        if missing:
            raise ValueError(f"{path}: expected AlexNet's weights, but {', '.join(missing[:3])} … are missing")
        for name, theirs in names.items():
            got, shape = list(state[theirs].shape), list(own[name].shape)
            if got != shape:
                raise ValueError(f"{path}: expected {theirs} {shape}, as AlexNet has it, got {got}")
        self.network.net.load_state_dict({name: state[theirs] for name, theirs in names.items()})

    def map(self, true: np.ndarray, rebuilt: np.ndarray) -> np.ndarray:
        """Where the distance comes from: uint8 [H W 3] twice -> float32 [H W], about `distance` in the mean."""
        return self._compare(true, rebuilt, spatial=True)[0, 0].numpy()

    def distance(self, true: np.ndarray, rebuilt: np.ndarray) -> float:
        """LPIPS proper: each layer's map averaged at its own resolution; uint8 [H W 3] twice."""
        return float(self._compare(true, rebuilt, spatial=False))

    def _compare(self, true: np.ndarray, rebuilt: np.ndarray, *, spatial: bool):
        import torch

        self.network.spatial = spatial
        both = np.stack([true, rebuilt])
        pair = torch.from_numpy(both).movedim(-1, 1)[:, None]  # pyright: ignore[reportUnknownMemberType]
        with torch.no_grad():
            return self.network(*(image / 127.5 - 1 for image in pair))


def _check_frames(true: np.ndarray, rebuilt: np.ndarray, masks: dict[str, np.ndarray]) -> None:
    if true.ndim != 3 or true.shape[2] != 3 or true.dtype != np.uint8 or rebuilt.dtype != np.uint8:
        got = f"{true.dtype} {list(true.shape)} and {rebuilt.dtype}"
        raise ValueError(f"true and rebuilt: expected uint8 [H W 3] frames, got {got}")
    _check_same("rebuilt", rebuilt, true)
    size = list(true.shape[:2])
    for name, mask in masks.items():
        if list(mask.shape) != size or mask.dtype != bool:
            raise ValueError(f"mask {name!r}: expected bool {size}, got {mask.dtype} {list(mask.shape)}")


def _check_same(name: str, array: np.ndarray, like: np.ndarray) -> None:
    if array.shape != like.shape:
        raise ValueError(f"{name}: expected shape {list(like.shape)} as the truth has, got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64)) if np.size(values) else float("nan")


def _ratio(count: float | np.number, total: float | np.number) -> float:
    return float(count) / float(total) if total else float("nan")
