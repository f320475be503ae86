"""The moving average: equal to the student at the start, exact afterwards, never trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medssl.methods.teacher import Teacher


@pytest.fixture
def students():
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU()), nn.Linear(4, 3)]


def move(students) -> None:
    with torch.no_grad():
        for student in students:
            for parameter in student.parameters():
                parameter.add_(torch.randn_like(parameter))


def test_teacher_equals_the_student_at_the_start_and_is_apart_from_it(students):
    teacher, x = Teacher(*students), torch.randn(6, 5)
    features, z = teacher(x)
    torch.testing.assert_close(features, students[0](x), atol=0, rtol=0)
    torch.testing.assert_close(z, students[1](features), atol=0, rtol=0)
    move(students)
    assert not torch.equal(teacher(x)[1], students[1](students[0](x)))


def test_update_is_the_formula(students):
    students = [student.double() for student in students]
    teacher = Teacher(*students)
    before = [parameter.clone() for parameter in teacher.parameters()]
    move(students)
    teacher.update(students, 0.9)
    theta = [parameter for student in students for parameter in student.parameters()]
    assert len(theta) == 6
    for xi, old, new in zip(teacher.parameters(), before, theta, strict=True):
        torch.testing.assert_close(xi, 0.9 * old + 0.1 * new, atol=1e-15, rtol=1e-14)


@pytest.mark.parametrize(("momentum", "follows"), [(0.0, True), (1.0, False)])
def test_ends_of_the_momentum(students, momentum, follows):
    teacher = Teacher(*students)
    before = [parameter.clone() for parameter in teacher.parameters()]
    move(students)
    teacher.update(students, momentum)
    theta = [parameter for student in students for parameter in student.parameters()]
    for xi, expected in zip(teacher.parameters(), theta if follows else before, strict=True):
        torch.testing.assert_close(xi, expected)


def test_no_gradient_reaches_the_teacher(students):
    teacher, x = Teacher(*students), torch.randn(6, 5, requires_grad=True)
    assert all(not parameter.requires_grad for parameter in teacher.parameters())
    assert all(not output.requires_grad for output in teacher(x))
    teacher.update(students, 0.5)
    assert all(not parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for student in students for parameter in student.parameters())


def test_batch_statistics_are_the_teachers_own(students):
    teacher = Teacher(*students).train()
    x = torch.randn(64, 5) + 2
    students[0](x)
    teacher.update(students, 0.0)
    own = teacher.copies[0][1]
    assert torch.equal(own.running_mean, torch.zeros(4))
    teacher(x)
    torch.testing.assert_close(own.running_mean, students[0][1].running_mean)
    assert own.num_batches_tracked == 1


def test_wrong_updates_are_refused(students):
    teacher = Teacher(*students)
    with pytest.raises(ValueError, match=r"decay value 1\.5"):
        teacher.update(students, 1.5)
    with pytest.raises(ValueError, match="copied from"):
        teacher.update(students[:1], 0.5)
