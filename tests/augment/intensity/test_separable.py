from __future__ import annotations

import torch

from medssl.augment.intensity.separable import along_axes, gaussian_matrices, resolution_matrices


def test_matrices_are_applied_along_their_axis_in_their_order():
    images = torch.rand(2, 3, 4, 5, 6)
    matrices = [torch.rand(2, 7, 4), torch.rand(2, 8, 5), torch.rand(2, 9, 6)]
    expected = torch.einsum("nczyx,naz,nby,ncx->ncaby".replace("ncx->ncaby", "ndx->ncabd"), images, *matrices)
    torch.testing.assert_close(along_axes(images, matrices), expected)


def test_matrices_by_sample():
    images = torch.rand(2, 1, 6, 6)
    swap = torch.eye(6).flip(0)
    matrices = [torch.stack([torch.eye(6), swap]), torch.stack([torch.eye(6), torch.eye(6)])]
    out = along_axes(images, matrices)
    assert torch.equal(out[0], images[0])
    assert torch.equal(out[1], images[1].flip(1))


def test_rows_of_every_filter_sum_to_1_and_none_is_negative():
    sigma, factor = torch.tensor([0.0, 0.3, 2.0, 8.0]), torch.tensor([0.01, 0.3, 0.77, 1.0])
    for matrix in gaussian_matrices(sigma, (1, 7, 64)) + resolution_matrices(factor, (1, 7, 64)):
        torch.testing.assert_close(matrix.sum(2), torch.ones(matrix.shape[:2]))
        assert matrix.min() >= 0


def test_the_identity_among_others():
    both = gaussian_matrices(torch.tensor([0.0, 2.0]), (9,))[0]
    torch.testing.assert_close(both[0], torch.eye(9))
    assert both[1].diagonal()[1:-1].max() < 0.25
    torch.testing.assert_close(resolution_matrices(torch.tensor([1.0, 0.5]), (9,))[0][0], torch.eye(9))


def test_a_resolution_matrix_has_the_rank_of_what_is_left():
    for factor in (0.25, 0.5, 0.8):
        matrix = resolution_matrices(torch.tensor([factor]), (20,))[0][0]
        assert torch.linalg.matrix_rank(matrix.double(), rtol=1e-4) == round(20 * factor)
