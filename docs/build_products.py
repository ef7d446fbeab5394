"""The kernel that multiplies matrices in a reader's browser: build_live.py puts it on the site.

    python docs/build_products.py          print it in WebAssembly's text format

NumPy in a browser has no BLAS. led_ref then multiplies by np.einsum, unless it is given this kernel
(backends/led_backends/numpy_products.py): `products` computes `a @ b.T` in NumPy's own memory, four numbers at a time.

An element of the result is a dot product of a row of a and a row of b, both dense. To compute one, two numbers are fetched for
each multiplication. A block of ROWS x COLUMNS elements fetches ROWS + COLUMNS for ROWS * COLUMNS multiplications, and keeps its
sums in registers: a processor has sixteen for vectors, so the block cannot be much larger than 4 x 2.

                  b0   b1        rows of b
             a0   s00  s01
    rows     a1   s10  s11       each s holds 4 sums, of every 4th term; they are added at the end
    of a     a2   s20  s21
             a3   s30  s31

Where rows or columns are left over, blocks of one row or one column compute them.
"""

import hashlib
from pathlib import Path

BLOCKS = {4: 2, 1: 8}  # rows: columns
# a, b, c: addresses; _batch, _row: bytes to the next matrix, and to the next row.
MODULE = """
(module
  (import "env" "memory" (memory 0))
{blocks}
  (func (export "products")
    (param $batches i32) (param $n i32) (param $m i32) (param $k i32)
    (param $a i32) (param $a_batch i32) (param $a_row i32)
    (param $b i32) (param $b_batch i32) (param $b_row i32)
    (param $c i32) (param $c_batch i32) (param $c_row i32)
    (local $i i32) (local $j i32)
    (block $done (loop $batch
      (br_if $done (i32.eqz (local.get $batches)))
      (local.set $i (i32.const 0)){strips}
      (local.set $a (i32.add (local.get $a) (local.get $a_batch)))
      (local.set $b (i32.add (local.get $b) (local.get $b_batch)))
      (local.set $c (i32.add (local.get $c) (local.get $c_batch)))
      (local.set $batches (i32.sub (local.get $batches) (i32.const 1)))
      (br $batch)))))
"""

# While so many are left of `count`: do it, and go on.
WHILE = """
      (block $end_{label} (loop $next_{label}
        (br_if $end_{label} (i32.gt_s (i32.add (local.get ${at}) (i32.const {step})) (local.get ${count}))){body}
        (local.set ${at} (i32.add (local.get ${at}) (i32.const {step})))
        (br $next_{label})))"""

CALL = """
          (call $block_{rows}x{columns} (local.get $k)
            (i32.add (local.get $a) (i32.mul (local.get $i) (local.get $a_row))) (local.get $a_row)
            (i32.add (local.get $b) (i32.mul (local.get $j) (local.get $b_row))) (local.get $b_row)
            (i32.add (i32.add (local.get $c) (i32.mul (local.get $i) (local.get $c_row)))
                     (i32.shl (local.get $j) (i32.const 2))) (local.get $c_row))"""

# While `size` bytes are left of the rows: all products of a step, added to the sums.
LOOP = """
    (block $end_{size} (loop $next_{size}
      (br_if $end_{size} (i32.lt_s (local.get $left) (i32.const {size}))){loads}{sums}{steps}
      (local.set $left (i32.sub (local.get $left) (i32.const {size})))
      (br $next_{size})))"""


def module() -> str:
    """The kernel in WebAssembly's text format."""
    strips = ""
    for rows, columns in BLOCKS.items():
        along = "(local.set $j (i32.const 0))"
        for step in (columns, 1):
            call = CALL.format(rows=rows, columns=step)
            along += WHILE.format(label=f"{rows}x{step}", at="j", step=step, count="m", body=call)
        strips += WHILE.format(label=f"{rows}_rows", at="i", step=rows, count="n", body=along)
    blocks = "".join(block(rows, step) for rows, columns in BLOCKS.items() for step in (columns, 1))
    return MODULE.format(blocks=blocks, strips=strips)


def block(rows: int, columns: int) -> str:
    """The function of one block: rows x columns dot products of k terms."""
    sums = [(i, j) for i in range(rows) for j in range(columns)]
    pointers = [(f"a{i}", "a", i) for i in range(rows)] + [(f"b{j}", "b", j) for j in range(columns)]
    locals_ = [
        "(local $left i32) (local $x v128)",
        *(f"(local ${name} i32)" for name, _, _ in pointers),
        *(f"(local $y{j} v128)" for j in range(columns)),
        *(f"(local $s{i}{j} v128)" for i, j in sums),  # they begin as zeros
    ]
    begin = [
        f"(local.set ${name} (i32.add (local.get ${matrix}) (i32.mul (local.get ${matrix}_row) (i32.const {number}))))"
        for name, matrix, number in pointers
    ]

    def loop(size: int, load: str) -> str:
        """`load` fetches four numbers, or one and three zeros."""
        loads = [f"(local.set $y{j} ({load} (local.get $b{j})))" for j in range(columns)]
        added = []
        for i in range(rows):
            added.append(f"(local.set $x ({load} (local.get $a{i})))")
            added += [
                f"(local.set $s{i}{j} (f32x4.add (local.get $s{i}{j}) (f32x4.mul (local.get $x) (local.get $y{j}))))"
                for j in range(columns)
            ]
        steps = [f"(local.set ${name} (i32.add (local.get ${name}) (i32.const {size})))" for name, _, _ in pointers]
        return LOOP.format(size=size, loads=lines(loads), sums=lines(added), steps=lines(steps))

    results = [
        f"(f32.store offset={4 * j} (i32.add (local.get $c) (i32.mul (local.get $c_row) (i32.const {i})))"
        f" {sum_of_lanes(f'$s{i}{j}')})"
        for i, j in sums
    ]
    return (
        f"  (func $block_{rows}x{columns} (param $k i32) (param $a i32) (param $a_row i32)"
        f" (param $b i32) (param $b_row i32) (param $c i32) (param $c_row i32){lines(locals_)}{lines(begin)}"
        f"\n    (local.set $left (i32.shl (local.get $k) (i32.const 2)))"
        f"{loop(16, 'v128.load')}{loop(4, 'v128.load32_zero')}{lines(results)})\n"
    )


def sum_of_lanes(name: str) -> str:
    """The sum of the four numbers of a vector: (0 + 1) + (2 + 3)."""
    low, high = (
        "(f32.add " + " ".join(f"(f32x4.extract_lane {lane} (local.get {name}))" for lane in lanes) + ")"
        for lanes in ((0, 1), (2, 3))
    )
    return f"(f32.add {low} {high})"


def lines(statements: list[str]) -> str:
    """Statements, each in a line of its own."""
    return "".join(f"\n    {statement}" for statement in statements)


def write_kernel(folder: Path) -> Path:
    """Write the file, remove older ones, and say where it is."""
    content = binary()
    path = folder / f"products-{hashlib.sha256(content).hexdigest()[:12]}.wasm"
    path.write_bytes(content)
    for old in set(folder.glob("products-*.wasm")) - {path}:
        old.unlink()
    return path


def binary() -> bytes:
    """The kernel as browsers take it."""
    import wasmtime

    return bytes(wasmtime.wat2wasm(module()))


if __name__ == "__main__":
    print(module())
