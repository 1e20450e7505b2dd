"""The traffic of HLO programs: hand-written texts, and what jax compiles."""

from __future__ import annotations

import pytest

from redistrib.errors import RedistribError
from redistrib.interop.hlo_traffic import hlo_traffic, replica_groups

HEADER = (
    "HloModule m, is_scheduled=true, entry_computation_layout={()->f32[8]{0}}, num_partitions=8\n"
)


def module(*lines: str, more: str = "") -> str:
    body = "\n".join(f"  {line}" for line in lines)
    return f"{HEADER}\n{more}\nENTRY %main_spmd (p: f32[8]) -> f32[8] {{\n{body}\n}}\n"


@pytest.mark.parametrize(
    ("line", "received", "counts"),
    [
        # each member of a group of 4 gets 3 tiles of 32 bytes
        (
            "%g = f32[32]{0} all-gather(%p), channel_id=1, replica_groups=[2,4]<=[8]",
            96,
            {"all-gather": 1},
        ),
        (
            "%g = (f32[8], f32[32]) all-gather-start(%p), replica_groups={{0,1,2,3},{4,5,6,7}}",
            96,
            {"all-gather": 1},
        ),
        (
            "ROOT %a = (f32[2]{0}, f32[2]{0}, f32[2]{0}, /*index=3*/f32[2]{0}) all-to-all(%a, %b, "
            "%c, %d), replica_groups={{0,2,4,6},{1,3,5,7}}",
            24,
            {"all-to-all": 1},
        ),
        ("%r = f32[2]{0} reduce-scatter(%p), replica_groups=[2,4]<=[8], to_apply=%add", 24, None),
        ("%r = f32[8]{0} all-reduce(%p), replica_groups={}, to_apply=%add", 56, None),
        ("%r = f32[8]{0} all-reduce(%p), replica_groups=[1,8]<=[8], to_apply=%add", 56, None),
        (
            "%c = bf16[8]{0} collective-permute(%p), source_target_pairs={{0,1},{1,0},{2,2}}",
            16,
            {"collective-permute": 1},
        ),
        (
            "%c = (f32[8], f32[8], u32[], u32[]) collective-permute-start(%p), "
            "source_target_pairs={{0,1}}",
            32,
            {"collective-permute": 1},
        ),
        # nothing moves: groups of one, or every device keeps its own
        ("%g = f32[8]{0} all-gather(%p), replica_groups=[8,1]<=[8]", 0, {}),
        ("%c = f32[8]{0} collective-permute(%p), source_target_pairs={{0,0},{1,1}}", 0, {}),
        ("ROOT %p = f32[8]{0} parameter(0)", 0, {}),
    ],
)
def test_bytes_of_each_collective(line: str, received: int, counts: dict[str, int] | None) -> None:
    traffic = hlo_traffic(module(line))
    assert traffic.received_bytes == received
    if counts is not None:
        assert traffic.counts == counts


def test_the_worst_device_counts_over_all_collectives() -> None:
    text = module(
        "%a = f32[8]{0} collective-permute(%p), source_target_pairs={{0,1}}",
        "%b = f32[8]{0} collective-permute(%a), source_target_pairs={{0,1}}",
        "%c = f32[8]{0} collective-permute(%b), source_target_pairs={{0,2}}",
    )
    traffic = hlo_traffic(text)
    assert (traffic.received_bytes, traffic.num_collectives) == (64, 3)


LOOP = """
%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%t), index=1
  %c = f32[8]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
  ROOT %r = (s32[], f32[8]{0}) tuple(%i, %c)
}

%cond (t: (s32[], f32[8])) -> pred[] {
  %t = (s32[], f32[8]{0}) parameter(0)
  ROOT %l = pred[] compare(%t, %t), direction=LT
}
"""
WHILE = "%w = (s32[], f32[8]{0}) while(%i), condition=%cond, body=%body"


def test_a_loop_counts_its_trips() -> None:
    known = WHILE + ', backend_config={"known_trip_count":{"n":"5"},"known_init_step":{}}'
    traffic = hlo_traffic(module(known, more=LOOP))
    assert (traffic.received_bytes, traffic.num_collectives) == (160, 5)


COUNTED = """
%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t = (s32[], f32[8]{0}) parameter(0)
  %one = s32[] constant(1)
  %i = s32[]{:T(128)} get-tuple-element(%t), index=0
  %x = f32[8]{0} get-tuple-element(%t), index=1
  %c = f32[8]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
  %next = s32[] add(%one, %i)
  ROOT %r = (s32[], f32[8]{0}) tuple(%next, /*index=1*/%c)
}

%cond (t: (s32[], f32[8])) -> pred[] {
  %end = s32[] constant(8)
  %t = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  ROOT %l = pred[] compare(%i, %end), direction=LT
}
"""


def test_a_loop_with_a_counter_counts_its_trips() -> None:
    lines = (
        "%zero = s32[]{:T(128)} constant(2)",
        "%start = s32[]{:T(128)} copy(%zero)",
        "%p = f32[8]{0} parameter(0)",
        "%i = (s32[], f32[8]{0}) tuple(%start, %p)",
        "ROOT " + WHILE,
    )
    assert hlo_traffic(module(*lines, more=COUNTED)).received_bytes == 6 * 32
    for known, other in (
        ("add(%one", "add(%i"),
        ("direction=LT", "direction=LE"),
        ("constant(8)", "%x"),
    ):
        with pytest.raises(RedistribError, match="known trip count"):
            hlo_traffic(module(*lines, more=COUNTED.replace(known, other)))


def test_a_loop_of_unknown_length_is_refused() -> None:
    with pytest.raises(RedistribError, match="known trip count"):
        hlo_traffic(module(WHILE, more=LOOP))


def test_called_computations_count_and_fused_ones_do_not() -> None:
    more = """
%f (p: f32[8]) -> f32[1024] {
  %p = f32[8]{0} parameter(0)
  ROOT %b = f32[1024]{0} broadcast(%p), dimensions={0}
}

%called (p: f32[8]) -> f32[16] {
  %p = f32[8]{0} parameter(0)
  ROOT %g = f32[16]{0} all-gather(%p), replica_groups=[4,2]<=[8]
}
"""
    text = module(
        "%c = f32[16]{0} call(%p), to_apply=%called",
        "%d = f32[32]{0} fusion(%c), kind=kLoop, calls=%f",
        more=more,
    )
    traffic = hlo_traffic(text)
    assert (traffic.received_bytes, traffic.largest_buffer_bytes) == (32, 128)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}", [(0, 1), (2, 3)]),
        ("replica_groups={{3,1},{0,2}}, dims", [(3, 1), (0, 2)]),
        ("replica_groups=[2,2]<=[4]", [(0, 1), (2, 3)]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [(0, 2), (1, 3)]),
        ("replica_groups={}", [(0, 1, 2, 3)]),
        ("replica_groups=mesh['x'=2,'y'=2] {'y'}", [(0, 1), (2, 3)]),
        ("replica_groups=mesh['x'=2,'y'=2] {'x'}", [(0, 2), (1, 3)]),
        ("replica_groups=mesh['x'=2,'y'=2] {'y','x'}", [(0, 2, 1, 3)]),
        ("replica_groups=mesh['x'=2,'y'=2], device_ids=([2,2]T(1,0)) {'y'}", [(0, 2), (1, 3)]),
        ("replica_groups=mesh['x'=2,'y'=2], device_ids=(3,2,1,0) {'y'}", [(3, 2), (1, 0)]),
        ("replica_groups=mesh['x'=4,'y'=1] {'x':(1)2}", [(0, 2), (1, 3)]),
        ("replica_groups=mesh['x'=4] {'x':(2)2}", [(0, 1), (2, 3)]),
    ],
)
def test_forms_of_replica_groups(text: str, groups: list[tuple[int, ...]]) -> None:
    assert replica_groups(text, 4) == groups


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ENTRY computation"),
        (module("%g = f32[8]{0} all-gather(%p), replica_groups=@nowhere"), "unknown form"),
        (module("%g = f32[8]{0} collective-permute(%p)"), "source_target_pairs"),
        (module("%g = q7[8]{0} copy(%p)"), "unknown HLO element type 'q7'"),
        (module("%g = f32[8]{0} ragged-all-to-all(%p)"), "not in the text"),
    ],
)
def test_what_cannot_be_read_is_an_error(text: str, message: str) -> None:
    with pytest.raises(RedistribError, match=message):
        hlo_traffic(text)
