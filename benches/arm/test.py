"""Holds the arithmetic of `model.py` to numbers worked out by hand: `python3 benches/arm/test.py`. Runs nothing else."""

import unittest

import boards
import model
import report

# Two blocks: one that computes for long, and one that reads; the encoder's one layer lies between two readings of the clock.
TRACE = """stage clock
1000 10 5 0 1 1 1
stage clock
2000 8 6400 6300 100 40 10
3000 4 100 0 0 0 0
stage write
1000 10 7 0 0 0 0
"""
CORE = boards.Core("a core", "", "", macs=32, l2_bytes=16, l3_bytes=8, mispredict=11)
BOARD = boards.Board("a board", "", "", ((CORE, 4, 1.0),), (), dram_peak=2, dram=1, dram_source="")
KINDS = {0x1000: ("other", 5.0), 0x2000: ("attention", 2.0), 0x3000: ("products", 0.1)}


def phase():
    ((name, sections),) = model.phases(model.parse_trace(TRACE.split("\n")[:-1]), ["encode"])
    return name, sections


def works():
    attends = lambda section: any(b.address == 0x2000 for b in section.blocks)
    return model.total(phase(), lambda b: KINDS[b.address], CORE, attends)


class Arithmetic(unittest.TestCase):
    def test_blocks_stand_behind_the_line_that_ended_their_stage(self):
        name, sections = phase()
        self.assertEqual(name, "encode")
        self.assertEqual([len(s.blocks) for s in sections], [1, 2, 1])
        self.assertEqual(sections[1].blocks[0], model.Block(0x2000, 8, 6400, 6300, (100, 40, 10)))

    def test_a_layer_stands_for_all_and_the_rest_happens_once(self):
        out = works()
        self.assertEqual(set(out), {("before", "other"), ("layers", "attention"), ("layers", "products"), ("behind", "other")})
        self.assertEqual(out["before", "other"].cycles, 25)
        self.assertEqual(out["behind", "other"].cycles, 35)
        self.assertEqual(out["layers", "attention"].instructions, 27 * 8 * 6400)

    def test_the_end_of_a_long_loop_is_mispredicted_and_no_block_is_faster_than_its_branch(self):
        out = works()
        # 6400 runs, 100 of which began anew: 64 rounds are more than is remembered.
        self.assertEqual(out["layers", "attention"].cycles, 27 * (2 * 6400 + 100 * 11))
        self.assertEqual(out["layers", "products"].cycles, 27 * 100)

    def test_misses_cost_the_level_that_has_the_line(self):
        work = works()["layers", "attention"]
        self.assertEqual(work.cache_cycles, 27 * (60 * 64 / 16 + 30 * 64 / 8))
        self.assertEqual(work.dram_lines, 270)

    def test_time_is_what_takes_longer_and_some_work_is_one_threads(self):
        out = {("layers", "products"): model.Work(4e9, 0, 1e6), ("before", "other"): model.Work(1e9, 0, 0)}
        times = model.seconds("encode", [out], BOARD, [(4, 1e9)])
        self.assertEqual(times["layers", "products"], (1.0, 1.0, 0.064))
        self.assertEqual(times["before", "other"][0], 1.0)
        out = {("layers", "products"): model.Work(1e6, 0, 1e6), ("layers", "norms"): model.Work(1e9, 0, 0)}
        times = model.seconds("token", [out], BOARD, [(4, 1e9)])
        self.assertEqual(times["layers", "products"][0], 0.064)
        self.assertEqual(times["layers", "norms"][0], 1.0)

    def test_weights_come_while_others_are_multiplied_and_one_row_attends_in_two_tasks(self):
        out = {
            ("layers", "products"): model.Work(4e9, 0, 0),
            ("layers", "unpacking"): model.Work(4e8, 0, 1e9 / 64),
            ("layers", "attention"): model.Work(4e9, 0, 0),
        }
        times = model.seconds("encode", [out], BOARD, [(4, 1e9)])
        # 1.1 s of computing, 1 s of reading.
        self.assertAlmostEqual(times["layers", "products"][0] + times["layers", "unpacking"][0], 1.1)
        self.assertEqual(times["layers", "attention"][0], 1.0)
        self.assertEqual(model.seconds("token", [out], BOARD, [(4, 1e9)])["layers", "attention"][0], 2.0)

    def test_cores_of_two_kinds_share_by_their_speed(self):
        fast = {("layers", "products"): model.Work(1e9, 0, 0)}
        slow = {("layers", "products"): model.Work(2e9, 0, 0)}
        # One does all of it in 0.5 s, the two others in 1 s: together a third of a second.
        times = model.seconds("encode", [fast, slow], BOARD, [(1, 2e9), (2, 1e9)])
        self.assertAlmostEqual(times["layers", "products"][0], 1 / 3)

    def test_a_trace_without_layers_is_refused(self):
        with self.assertRaises(SystemExit):
            model.weights_of_sections("encode", phase()[1], lambda section: False)

    def test_the_model_is_counted_as_the_documentation_says(self):
        count = model.multiply_adds(260)
        self.assertEqual([round(count[p] / 1e9) for p in ("encode", "prefill")], [110, 494])
        self.assertEqual(round(model.read_for_a_token("int4") / 1e7), 160)

    def test_names_of_functions_are_told_apart(self):
        names = {
            "palmtop_kernels::matmul_int::neon::matmul_integer_dotprod": "products",
            "palmtop_kernels::dispatch::neon_dotprod::attention_int8": "attention",
            "palmtop_kernels::dispatch::neon_dotprod::gelu_mul": "gelu",
            "palmtop_kernels::dispatch::neon_dotprod::layer_norm": "norms",
            "memcpy": "copies",
            "core::fmt::write": "other",
        }
        for name, kind in names.items():
            self.assertEqual(model.kind_of(name), kind, name)

    def test_every_board_has_cores_caches_and_a_source_of_what_its_memory_gives(self):
        for board in boards.BOARDS.values():
            self.assertTrue(board.cores and board.dram <= board.dram_peak and board.dram_source)
            for size, ways in board.caches:
                sets = size // model.LINE // ways
                self.assertEqual(sets & (sets - 1), 0)
            self.assertEqual(board.watts is None, board.watts_source == "")

    def test_energy_is_power_times_time(self):
        self.assertEqual(model.joules(8.0, 2.0, 0.5, 3), 24.0)
        self.assertEqual(report.milliseconds(0.0123), "12.3")


if __name__ == "__main__":
    unittest.main()
