"""Measures what a GPU can at best do: bytes read from its memory per second, and operations of its tensor cores per second.

    python3 tests/bench/gpu_floor.py [--out FIGURES.json] [--device N] [--quick]

docs/floor.md says what the figures are for. Needs an NVIDIA driver (libcuda) and about 40 GB of free device memory; no
toolkit: the kernels are PTX, written below and compiled by the driver. cuBLASLt is used where one is found (a CUDA toolkit,
or the nvidia-cublas wheel beside this Python). It sets nothing on the card, and it asserts nothing about the figures; it
does check that each kernel did its work.

 - read: all of a 16 GiB buffer, by 16-byte loads and by bulk copies into shared memory, several shapes of each.
 - read, compressible: the same from memory that the hardware may compress.
 - decode step: the matrix-vector products of one token of Qwen2.5-72B on one of four GPUs, 80 layers and the head, bf16,
   as one graph; neither attention nor communication.
 - matmul: cuBLASLt, bf16 and fp8, the square 8192 and the widest layer of the model.
 - tensor cores alone: a loop of wgmma on the same tiles of shared memory, which moves no data; Hopper only.

Data is random of normal distribution unless the row says zeros: zeros take less power, so the clock stays higher. Rates are
in 10^12 bytes or operations per second, from the device's own events around each launch.
"""

import argparse
import ctypes
import datetime
import glob
import json
import os
import platform
import random
import statistics
import struct
import subprocess
import sys
import threading
import time

GIB = 1 << 30
# Data sheets, SXM: bytes/s, dense bf16 and fp8 operations/s.
NOMINAL = {
    "NVIDIA H200": (4.8e12, 989.4e12, 1978.9e12),
    "NVIDIA H100 80GB HBM3": (3.35e12, 989.4e12, 1978.9e12),
}
# Dense bf16 operations of one multiprocessor in one clock, by compute capability; fp8 does twice as many.
OPS_PER_CLOCK = {(9, 0): 4096}

# ---------------------------------------------------------------- kernels

LOADS = [(threads, unroll) for threads in (256, 512) for unroll in (4, 8)]
# Bytes of a copy, stages.
BULKS = [(16384, 4), (16384, 12), (32768, 6)]
BULK_THREADS = 128
GEMV_UNROLL = 8

HASH = """
    mul.lo.u32 %h, %h, 0x9E3779B1;
    shr.u32 %s, %h, 16;  xor.b32 %h, %h, %s;
    mul.lo.u32 %h, %h, 0x85EBCA6B;
    shr.u32 %s, %h, 13;  xor.b32 %h, %h, %s;
    mul.lo.u32 %h, %h, 0xC2B2AE35;
    shr.u32 %s, %h, 16;  xor.b32 %h, %h, %s;
"""


def hash_word(word):
    """What `fill_raw` writes at a word's index."""
    word = word * 0x9E3779B1 & 0xFFFFFFFF
    word ^= word >> 16
    word = word * 0x85EBCA6B & 0xFFFFFFFF
    word ^= word >> 13
    word = word * 0xC2B2AE35 & 0xFFFFFFFF
    return word ^ word >> 16


def fill(name, body):
    """A kernel that writes words made of the hash of their index."""
    return f"""
.visible .entry {name}(.param .u64 pointer, .param .u64 words, .param .u32 salt)
{{
    .reg .pred %p; .reg .u32 %h, %s, %t, %u, %salt; .reg .b32 %w; .reg .u64 %a, %i, %n, %step; .reg .f32 %f<4>; .reg .b16 %c<2>;
    ld.param.u64 %a, [pointer]; ld.param.u64 %n, [words]; ld.param.u32 %salt, [salt];
    mov.u32 %t, %ctaid.x; mov.u32 %u, %ntid.x; mov.u32 %s, %tid.x;
    mad.lo.u32 %t, %t, %u, %s;
    cvt.u64.u32 %i, %t;
    mov.u32 %t, %nctaid.x; mul.wide.u32 %step, %t, %u;
    mad.lo.u64 %a, %i, 4, %a;
LOOP:
    setp.ge.u64 %p, %i, %n;
    @%p bra DONE;
    cvt.u32.u64 %h, %i; xor.b32 %h, %h, %salt;
    {body}
    st.global.u32 [%a], %w;
    add.u64 %i, %i, %step;
    mad.lo.u64 %a, %step, 4, %a;
    bra LOOP;
DONE:
    ret;
}}
"""


def normals(count):
    """The sum of four random bytes is nearly normal: `count` floats of unit deviation from one hash after another."""
    code = ""
    for i in range(count):
        code += (
            HASH
            + f"""
    dp4a.u32.u32 %w, %h, 0x01010101, 0;
    cvt.rn.f32.u32 %f{i}, %w; sub.f32 %f{i}, %f{i}, 0f43FF0000; mul.f32 %f{i}, %f{i}, 0f3BDDB22D;
    add.u32 %h, %h, 0x3C6EF35F;
"""
        )
    return code


def xor_all(registers):
    return "".join(f"    xor.b32 %x, %x, {register};\n" for register in registers)


# One word a warp, so that the end of a kernel costs nothing.
XOR_OUT = """
    redux.sync.xor.b32 %x, %x, 0xffffffff;
    and.b32 %t, %me, 31;
    setp.eq.u32 %p, %t, 0;
    ld.param.u64 %a, [out];
    @%p red.global.xor.b32 [%a], %x;
    ret;
"""


def read_loads(threads, unroll):
    loads = "".join(
        f"    ld.global.nc.L1::no_allocate.v4.u32 {{%v{4 * u}, %v{4 * u + 1}, %v{4 * u + 2}, %v{4 * u + 3}}}, [%a+{u * threads * 16}];\n"
        for u in range(unroll)
    )
    return f"""
.visible .entry read_{threads}_{unroll}(.param .u64 pointer, .param .u64 bytes, .param .u64 out)
    .maxntid {threads}, 1, 1
{{
    .reg .pred %p; .reg .u32 %me, %t, %x, %v<{4 * unroll}>; .reg .u64 %a, %end, %step, %o;
    mov.u32 %me, %tid.x; mov.u32 %x, 0;
    ld.param.u64 %a, [pointer]; ld.param.u64 %end, [bytes]; add.u64 %end, %end, %a;
    mov.u32 %t, %ctaid.x; mul.wide.u32 %o, %t, {threads * unroll * 16}; add.u64 %a, %a, %o;
    mul.wide.u32 %o, %me, 16; add.u64 %a, %a, %o;
    mov.u32 %t, %nctaid.x; mul.wide.u32 %step, %t, {threads * unroll * 16};
LOOP:
    setp.ge.u64 %p, %a, %end;
    @%p bra DONE;
{loads}{xor_all(f"%v{i}" for i in range(4 * unroll))}    add.u64 %a, %a, %step;
    bra LOOP;
DONE:{XOR_OUT}}}
"""


def read_bulk(chunk, stages):
    consume = "".join(
        f"    ld.shared.v4.u32 {{%v0, %v1, %v2, %v3}}, [%m+{u * BULK_THREADS * 16}];\n"
        + xor_all(f"%v{i}" for i in range(4))
        for u in range(chunk // (BULK_THREADS * 16))
    )
    copy = f"""mbarrier.arrive.expect_tx.shared.b64 _, [%b], {chunk};
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%d], [%a], {chunk}, [%b];"""
    return f"""
.visible .entry bulk_{chunk}_{stages}(.param .u64 pointer, .param .u64 bytes, .param .u64 out)
    .maxntid {BULK_THREADS}, 1, 1
{{
    .reg .pred %p, %first, %more; .reg .u32 %me, %t, %x, %d, %b, %m, %s, %phase, %base, %v<4>; .reg .u64 %a, %r, %end, %step, %o;
    .shared .align 8 .b64 bars[{stages}];
    mov.u32 %me, %tid.x; mov.u32 %x, 0; setp.eq.u32 %first, %me, 0;
    mov.u32 %base, ring;
    ld.param.u64 %a, [pointer]; ld.param.u64 %end, [bytes]; add.u64 %end, %end, %a;
    mov.u32 %t, %ctaid.x; mul.wide.u32 %o, %t, {chunk}; add.u64 %a, %a, %o;
    mov.u32 %t, %nctaid.x; mul.wide.u32 %step, %t, {chunk};
    mov.u64 %r, %a;
    @!%first bra READY;
    mov.u32 %s, 0;
INIT:
    mov.u32 %b, bars; mad.lo.u32 %b, %s, 8, %b;
    mbarrier.init.shared.b64 [%b], 1;
    add.u32 %s, %s, 1; setp.lt.u32 %p, %s, {stages};
    @%p bra INIT;
    fence.proxy.async;
    mov.u32 %s, 0;
START:
    setp.ge.u64 %p, %a, %end;
    @%p bra READY;
    mov.u32 %b, bars; mad.lo.u32 %b, %s, 8, %b;
    mad.lo.u32 %d, %s, {chunk}, %base;
    {copy}
    add.u64 %a, %a, %step;
    add.u32 %s, %s, 1; setp.lt.u32 %p, %s, {stages};
    @%p bra START;
READY:
    bar.sync 0;
    mov.u32 %s, 0; mov.u32 %phase, 0;
LOOP:
    setp.ge.u64 %p, %r, %end;
    @%p bra DONE;
    mov.u32 %b, bars; mad.lo.u32 %b, %s, 8, %b;
    mad.lo.u32 %d, %s, {chunk}, %base; mad.lo.u32 %m, %me, 16, %d;
WAIT:
    mbarrier.try_wait.parity.shared.b64 %p, [%b], %phase;
    @!%p bra WAIT;
{consume}    bar.sync 0;
    setp.lt.u64 %more, %a, %end; and.pred %more, %more, %first;
    @!%more bra NEXT;
    {copy}
    add.u64 %a, %a, %step;
NEXT:
    add.u64 %r, %r, %step;
    add.u32 %s, %s, 1; setp.eq.u32 %p, %s, {stages};
    @%p xor.b32 %phase, %phase, 1;
    @%p mov.u32 %s, 0;
    bra LOOP;
DONE:{XOR_OUT}}}
"""


def gemv():
    """y = W x: a warp for each row of W, bf16, sums in f32."""
    rows, products = "", ""
    for u in range(GEMV_UNROLL):
        w = [f"%w{4 * u + i}" for i in range(4)]
        rows += f"    add.u32 %t, %i, {u * 32}; setp.lt.u32 %q{u}, %t, %n;\n"
        rows += "".join(f"    mov.u32 {register}, 0;\n" for register in w)
        rows += f"    @%q{u} ld.global.nc.L1::no_allocate.v4.u32 {{{', '.join(w)}}}, [%a+{u * 512}];\n"
        products += "    mov.u32 %x0, 0; mov.u32 %x1, 0; mov.u32 %x2, 0; mov.u32 %x3, 0;\n"
        products += f"    @%q{u} ld.global.nc.v4.u32 {{%x0, %x1, %x2, %x3}}, [%b+{u * 512}];\n"
        for i in range(4):
            products += (
                f"    shl.b32 %s0, {w[i]}, 16; shl.b32 %s1, %x{i}, 16; fma.rn.f32 %f{2 * i}, %s0, %s1, %f{2 * i};\n"
            )
            products += f"    and.b32 %s0, {w[i]}, 0xffff0000; and.b32 %s1, %x{i}, 0xffff0000; fma.rn.f32 %f{2 * i + 1}, %s0, %s1, %f{2 * i + 1};\n"
    # PTX wants f32 operands in f32 or untyped registers: %s are .b32.
    zero = "".join(f" mov.f32 %f{i}, 0f00000000;" for i in range(8))
    tree = "".join(f"    add.f32 %f{i}, %f{i}, %f{i + d};\n" for d in (4, 2, 1) for i in range(d))
    tree += "".join(
        f"    mov.b32 %s0, %f0; shfl.sync.bfly.b32 %s1, %s0, {d}, 31, 0xffffffff; mov.b32 %f1, %s1; add.f32 %f0, %f0, %f1;\n"
        for d in (16, 8, 4, 2, 1)
    )
    return f"""
.visible .entry gemv(.param .u64 matrix, .param .u64 vector, .param .u64 result, .param .u32 rows, .param .u32 vectors)
    .maxntid 256, 1, 1
{{
    .reg .pred %p, %q<{GEMV_UNROLL}>; .reg .b32 %s<2>, %w<{4 * GEMV_UNROLL}>, %x<4>; .reg .f32 %f<8>;
    .reg .u32 %t, %i, %n, %row, %lane, %base; .reg .u64 %a, %b, %o;
    mov.u32 %t, %tid.x; and.b32 %lane, %t, 31; shr.u32 %t, %t, 5;
    mov.u32 %row, %ctaid.x; mad.lo.u32 %row, %row, 8, %t;
    ld.param.u32 %t, [rows]; setp.ge.u32 %p, %row, %t;
    @%p bra END;
    ld.param.u32 %n, [vectors]; ld.param.u64 %a, [matrix]; ld.param.u64 %b, [vector];
    mul.wide.u32 %o, %row, %n; mad.lo.u64 %a, %o, 16, %a;
    mul.wide.u32 %o, %lane, 16; add.u64 %a, %a, %o; add.u64 %b, %b, %o;
    mov.u32 %base, 0;{zero}
LOOP:
    add.u32 %i, %base, %lane;
{rows}{products}    add.u64 %a, %a, {GEMV_UNROLL * 512}; add.u64 %b, %b, {GEMV_UNROLL * 512};
    add.u32 %base, %base, {GEMV_UNROLL * 32}; setp.lt.u32 %p, %base, %n;
    @%p bra LOOP;
{tree}    ld.param.u64 %a, [result]; mad.wide.u32 %a, %row, 4, %a;
    setp.eq.u32 %p, %lane, 0;
    @%p st.global.f32 [%a], %f0;
END:
    ret;
}}
"""


# Warpgroups, each with 64 rows of A, the 256 of B shared: rows of 128 bytes, swizzled, four steps along them.
TILE = (4 * 64 + 256) * 128
# Warpgroups, batches of STEPS wgmma that each leaves in flight.
TENSORS = [(1, 1), (2, 1)]
STEPS = 16


def tensor(kind, step, transposes, groups, flying):
    """`iterations` times STEPS wgmma of each warpgroup, on tiles that stay in shared memory; the clocks and the ns that the first block took."""
    threads = 128 * groups
    registers = ", ".join(f"%d{i}" for i in range(128))
    zero = "".join(f"    mov.f32 %d{i}, 0f00000000;\n" for i in range(128))
    work = "".join(
        f"    add.s64 %ka, %da, {2 * (i % 4)}; add.s64 %kb, %db, {2 * (i % 4)};\n"
        f"    wgmma.mma_async.sync.aligned.m64n256k{step}.f32.{kind}.{kind} {{{registers}}}, %ka, %kb, %on, 1, 1{transposes};\n"
        for i in range(STEPS)
    )
    total = "".join(f"    add.f32 %d0, %d0, %d{i};\n" for i in range(1, 128))
    return f"""
.visible .entry tensor_{kind}_{groups}_{flying}(.param .u64 source, .param .u64 out, .param .u64 clocks, .param .u32 iterations)
    .maxntid {threads}, 1, 1 .minnctapersm 1
{{
    .reg .pred %p, %on; .reg .u32 %me, %t, %i, %n, %m, %v<4>; .reg .u64 %a, %o, %da, %db, %ka, %kb, %c0, %c1, %g0, %g1; .reg .f32 %d<128>;
    mov.u32 %me, %tid.x; setp.eq.u32 %on, %me, %me;
    ld.param.u64 %a, [source]; mul.wide.u32 %o, %me, 16; add.u64 %a, %a, %o;
    mov.u32 %m, ring; mad.lo.u32 %m, %me, 16, %m;
    mov.u32 %i, 0;
COPY:
    ld.global.v4.u32 {{%v0, %v1, %v2, %v3}}, [%a];
    st.shared.v4.u32 [%m], {{%v0, %v1, %v2, %v3}};
    add.u64 %a, %a, {16 * threads}; add.u32 %m, %m, {16 * threads}; add.u32 %i, %i, {16 * threads};
    setp.lt.u32 %p, %i, {groups * 8192 + 32768};
    @%p bra COPY;
    fence.proxy.async;
    bar.sync 0;
    mov.u32 %m, ring; shr.u32 %t, %me, 7; mad.lo.u32 %t, %t, 8192, %m;
    shr.u32 %t, %t, 4; and.b32 %t, %t, 0x3fff; cvt.u64.u32 %da, %t; or.b64 %da, %da, 0x4000004000010000;
    add.u32 %t, %m, {groups * 8192};
    shr.u32 %t, %t, 4; and.b32 %t, %t, 0x3fff; cvt.u64.u32 %db, %t; or.b64 %db, %db, 0x4000004000010000;
    ld.param.u32 %n, [iterations]; mov.u32 %i, 0;
{zero}    bar.sync 0;
    mov.u64 %g0, %globaltimer; mov.u64 %c0, %clock64;
LOOP:
    wgmma.fence.sync.aligned;
{work}    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned {flying};
    add.u32 %i, %i, 1; setp.lt.u32 %p, %i, %n;
    @%p bra LOOP;
    wgmma.wait_group.sync.aligned 0;
    bar.sync 0;
    mov.u64 %c1, %clock64; sub.u64 %c1, %c1, %c0; mov.u64 %g1, %globaltimer; sub.u64 %g1, %g1, %g0;
{total}    mov.u32 %t, %ctaid.x; mad.lo.u32 %t, %t, {threads}, %me;
    ld.param.u64 %a, [out]; mad.wide.u32 %a, %t, 4, %a;
    st.global.f32 [%a], %d0;
    setp.eq.u32 %p, %t, 0;
    ld.param.u64 %a, [clocks];
    @%p st.global.v2.u64 [%a], {{%c1, %g1}};
    ret;
}}
"""


def ptx(target, kernels):
    return f".version 8.0\n.target {target}\n.address_size 64\n.extern .shared .align 1024 .b8 ring[];\n" + "".join(
        kernels
    )


def common():
    """What any GPU since 2020 runs."""
    bf16 = normals(2) + "    cvt.rn.bf16x2.f32 %w, %f1, %f0;\n"
    kernels = [fill("fill_raw", HASH + "    mov.u32 %w, %h;\n"), fill("fill_bf16", bf16), gemv()]
    return ptx("sm_80", kernels + [read_loads(*shape) for shape in LOADS])


def hopper():
    fp8 = (
        normals(4)
        + "    cvt.rn.satfinite.e4m3x2.f32 %c0, %f1, %f0; cvt.rn.satfinite.e4m3x2.f32 %c1, %f3, %f2; mov.b32 %w, {%c0, %c1};\n"
    )
    tensors = [tensor(*kind, *shape) for kind in (("bf16", 16, ", 0, 0"), ("e4m3", 32, "")) for shape in TENSORS]
    # The driver takes 8.0 for all but the narrow conversions, which came to sm_90 with 7.8 and sm_89 with 8.1.
    return ptx("sm_90a", [fill("fill_fp8", fp8)] + [read_bulk(*shape) for shape in BULKS] + tensors)


# ---------------------------------------------------------------- driver


class Missing(Exception):
    pass


class Gpu:
    """One device through the driver's interface; a call that fails raises with its name."""

    def __init__(self, index):
        try:
            self.library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise Missing(f"no NVIDIA driver here: {error}") from None
        try:
            self.call("cuInit", 0)
            device = ctypes.c_int()
            self.call("cuDeviceGet", ctypes.byref(device), index)
        except RuntimeError as error:
            raise Missing(f"no NVIDIA GPU here: {error}") from None
        self.index = device.value
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        name, bus = ctypes.create_string_buffer(128), ctypes.create_string_buffer(32)
        self.call("cuDeviceGetName", name, 128, device)
        self.call("cuDeviceGetPCIBusId", bus, 32, device)
        self.name, self.bus = name.value.decode(), bus.value.decode()
        self.processors = self.attribute(16)
        self.capability = self.attribute(75), self.attribute(76)
        self.stream = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(self.stream), 1)
        self.functions = {}

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self.library.cuGetErrorName(code, ctypes.byref(text))
            raise RuntimeError(f"{name}: {(text.value or b'?').decode()} ({code})")

    def attribute(self, number):
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), number, self.index)
        return value.value

    def load(self, source):
        """Compiles a module, and says what the compiler said if it cannot."""
        module, log = ctypes.c_void_p(), ctypes.create_string_buffer(1 << 14)
        # The log of errors and its size.
        options = (ctypes.c_int * 2)(5, 6)
        values = (ctypes.c_void_p * 2)(ctypes.addressof(log), len(log))
        try:
            self.call("cuModuleLoadDataEx", ctypes.byref(module), source.encode(), 2, options, values)
        except RuntimeError as error:
            raise RuntimeError(f"{error}: {log.value.decode()}") from None
        return module

    def function(self, module, name, shared=0):
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        if shared:
            self.call("cuFuncSetAttribute", function, 8, shared)
        return function

    def allocate(self, size):
        pointer = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer.value

    def free(self, pointer):
        self.call("cuMemFree_v2", ctypes.c_uint64(pointer))

    def compressible(self, size):
        """Memory that the hardware may compress; None where it cannot be had. It stays mapped until the program ends."""
        if not self.attribute(107):
            return None

        def properties():
            # Pinned, on the device; compression generic.
            return ctypes.create_string_buffer(struct.pack("<iiiiQBBH4x", 1, 0, 1, self.index, 0, 1, 0, 0), 32)

        handle, pointer = ctypes.c_uint64(), ctypes.c_uint64()
        self.call("cuMemCreate", ctypes.byref(handle), ctypes.c_size_t(size), properties(), ctypes.c_uint64(0))
        granted = properties()
        self.call("cuMemGetAllocationPropertiesFromHandle", granted, handle)
        if granted.raw[24] != 1:
            return None
        self.call(
            "cuMemAddressReserve",
            ctypes.byref(pointer),
            ctypes.c_size_t(size),
            ctypes.c_size_t(0),
            ctypes.c_uint64(0),
            ctypes.c_uint64(0),
        )
        self.call("cuMemMap", pointer, ctypes.c_size_t(size), ctypes.c_size_t(0), handle, ctypes.c_uint64(0))
        access = ctypes.create_string_buffer(struct.pack("<iii", 1, self.index, 3), 12)
        self.call("cuMemSetAccess", pointer, ctypes.c_size_t(size), access, ctypes.c_size_t(1))
        return pointer.value

    def constant(self, pointer, word, size):
        self.call("cuMemsetD32_v2", ctypes.c_uint64(pointer), ctypes.c_uint32(word), ctypes.c_size_t(size // 4))
        # Our stream does not wait for this.
        self.synchronize()

    def fetch(self, pointer, size):
        self.synchronize()
        buffer = ctypes.create_string_buffer(size)
        self.call("cuMemcpyDtoH_v2", buffer, ctypes.c_uint64(pointer), ctypes.c_size_t(size))
        return buffer.raw

    def synchronize(self):
        self.call("cuCtxSynchronize")

    def launcher(self, function, grid, threads, shared, *arguments):
        """A call that launches; arguments are ctypes values, kept alive by it."""
        pointers = (ctypes.c_void_p * len(arguments))(*[ctypes.addressof(argument) for argument in arguments])

        def launch(_keep=arguments):
            self.call("cuLaunchKernel", function, grid, 1, 1, threads, 1, 1, shared, self.stream, pointers, None)

        return launch

    def times(self, launch, repeats, pause=0.0):
        """Seconds of each of `repeats` launches by the device's events, after two to warm up; with a pause, each alone."""
        events = []
        for _ in range(2 * repeats):
            event = ctypes.c_void_p()
            self.call("cuEventCreate", ctypes.byref(event), 0)
            events.append(event)
        for _ in range(2):
            launch()
        self.synchronize()
        for start, end in zip(events[::2], events[1::2]):
            if pause:
                self.synchronize()
                time.sleep(pause)
            self.call("cuEventRecord", start, self.stream)
            launch()
            self.call("cuEventRecord", end, self.stream)
        self.synchronize()
        taken = []
        for start, end in zip(events[::2], events[1::2]):
            milliseconds = ctypes.c_float()
            self.call("cuEventElapsedTime", ctypes.byref(milliseconds), start, end)
            taken.append(milliseconds.value / 1e3)
        for event in events:
            self.call("cuEventDestroy_v2", event)
        return taken

    def graph(self, launches):
        """One launch that does all of them."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuStreamBeginCapture_v2", self.stream, 0)
        try:
            for launch in launches:
                launch()
        finally:
            self.call("cuStreamEndCapture", self.stream, ctypes.byref(graph))
        self.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_uint64(0))
        return lambda: self.call("cuGraphLaunch", executable, self.stream)


class Clocks:
    """Samples clocks and power beside the work, where NVML is there."""

    def __init__(self, bus):
        self.samples, self.stop = [], None
        try:
            self.nvml = ctypes.CDLL("libnvidia-ml.so.1")
            self.handle = ctypes.c_void_p()
            if self.nvml.nvmlInit_v2() or self.nvml.nvmlDeviceGetHandleByPciBusId_v2(
                bus.encode(), ctypes.byref(self.handle)
            ):
                self.nvml = None
        except OSError:
            self.nvml = None

    def __enter__(self):
        self.samples, self.stop = [], threading.Event()
        self.thread = threading.Thread(target=self.sample, daemon=True)
        self.thread.start()
        return self

    def sample(self):
        while self.nvml and not self.stop.wait(0.01):
            values = []
            # Of the multiprocessors and of the memory, in MHz.
            for kind in (1, 2):
                value = ctypes.c_uint()
                values.append(
                    None if self.nvml.nvmlDeviceGetClockInfo(self.handle, kind, ctypes.byref(value)) else value.value
                )
            value = ctypes.c_uint()
            values.append(
                None if self.nvml.nvmlDeviceGetPowerUsage(self.handle, ctypes.byref(value)) else value.value / 1e3
            )
            self.samples.append(values)

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def summary(self):
        names = ("sm_mhz", "memory_mhz", "watts")
        columns = {name: [row[i] for row in self.samples if row[i] is not None] for i, name in enumerate(names)}
        return {
            name: {"min": min(values), "median": statistics.median(values), "max": max(values)}
            for name, values in columns.items()
            if values
        }


# ---------------------------------------------------------------- cuBLASLt


class Lt:
    """D = W X as a linear layer has it, through cuBLASLt; the fastest of the algorithms it proposes."""

    BF16, FP8 = 14, 28

    def __init__(self, gpu):
        self.gpu, self.library, tried = gpu, None, []
        for path in self.places():
            try:
                self.library = ctypes.CDLL(path)
                self.path = path
                break
            except OSError as error:
                tried.append(str(error))
        if not self.library:
            raise Missing("no cuBLASLt found")
        self.handle = ctypes.c_void_p()
        self.call("cublasLtCreate", ctypes.byref(self.handle))
        self.library.cublasLtGetVersion.restype = ctypes.c_size_t
        self.version = self.library.cublasLtGetVersion()
        self.size = 64 << 20
        self.workspace = gpu.allocate(self.size)
        self.one = gpu.allocate(256)
        gpu.constant(self.one, 0x3F800000, 256)

    @staticmethod
    def places():
        for major in (13, 12):
            name = f"libcublasLt.so.{major}"
            yield name
            for root in sys.path + ["/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib"]:
                for pattern in (name, f"nvidia/*/lib/{name}"):
                    yield from sorted(glob.glob(os.path.join(root or ".", pattern)))

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code:
            raise RuntimeError(f"{name}: status {code}")

    def layout(self, kind, rows, columns):
        layout = ctypes.c_void_p()
        self.call(
            "cublasLtMatrixLayoutCreate",
            ctypes.byref(layout),
            kind,
            ctypes.c_uint64(rows),
            ctypes.c_uint64(columns),
            ctypes.c_int64(rows),
        )
        return layout

    def prepare(self, kind, m, n, k, w, x, d, wanted=8):
        """Launches of the algorithms proposed for W of m by k, X of n by k, D of n by m in bf16, each with k or m contiguous."""
        description, preference = ctypes.c_void_p(), ctypes.c_void_p()
        # Sums and scales in f32.
        self.call("cublasLtMatmulDescCreate", ctypes.byref(description), 68, 0)

        def describe(attribute, value):
            self.call(
                "cublasLtMatmulDescSetAttribute",
                description,
                attribute,
                ctypes.byref(value),
                ctypes.c_size_t(ctypes.sizeof(value)),
            )

        # The first operand transposed.
        describe(3, ctypes.c_int32(1))
        if kind == self.FP8:
            describe(17, ctypes.c_uint64(self.one))
            describe(18, ctypes.c_uint64(self.one))
            # Sums of less precision, which is the faster way.
            describe(25, ctypes.c_int8(1))
        layouts = self.layout(kind, k, m), self.layout(kind, k, n), self.layout(self.BF16, m, n)
        self.call("cublasLtMatmulPreferenceCreate", ctypes.byref(preference))
        limit = ctypes.c_size_t(self.size)
        self.call("cublasLtMatmulPreferenceSetAttribute", preference, 1, ctypes.byref(limit), ctypes.c_size_t(8))
        results, count = ctypes.create_string_buffer(96 * wanted), ctypes.c_int()
        a, b, c = layouts
        self.call(
            "cublasLtMatmulAlgoGetHeuristic",
            self.handle,
            description,
            a,
            b,
            c,
            c,
            preference,
            wanted,
            results,
            ctypes.byref(count),
        )
        alpha, beta = ctypes.c_float(1), ctypes.c_float(0)

        def launcher(i):
            algorithm = ctypes.create_string_buffer(results.raw[96 * i : 96 * i + 64], 64)

            def launch():
                self.call(
                    "cublasLtMatmul", self.handle, description, ctypes.byref(alpha), ctypes.c_uint64(w), a, ctypes.c_uint64(x), b,
                    ctypes.byref(beta), ctypes.c_uint64(d), c, ctypes.c_uint64(d), c, algorithm, ctypes.c_uint64(self.workspace),
                    ctypes.c_size_t(self.size), self.gpu.stream,
                )  # fmt: skip

            return launch

        return [launcher(i) for i in range(count.value)]

    def fastest(self, launches, repeats=5):
        timed = []
        for launch in launches:
            try:
                timed.append((statistics.median(self.gpu.times(launch, repeats)), launch))
            except RuntimeError:
                # An algorithm that does not take these operands after all.
                continue
        return min(timed, key=lambda pair: pair[0])[1]


# ---------------------------------------------------------------- measuring


class Bench:
    def __init__(self, gpu, quick):
        self.gpu, self.quick, self.rows, self.left_out = gpu, quick, [], []
        self.clocks = Clocks(gpu.bus)
        self.module = gpu.load(common())
        self.hopper = None
        if gpu.capability == (9, 0):
            self.hopper = gpu.load(hopper())
        else:
            self.left_out.append("bulk copies and wgmma: not a Hopper GPU")
        self.nominal = NOMINAL.get(gpu.name)
        # Both edges of the clock, the width of the bus in bits.
        self.bus_rate = gpu.attribute(36) * 1e3 * 2 * gpu.attribute(37) / 8
        per_clock = OPS_PER_CLOCK.get(gpu.capability)
        self.clock_rate = per_clock and per_clock * gpu.processors * gpu.attribute(13) * 1e3

    def fill(self, kernel, pointer, size, salt=0):
        module = self.hopper if kernel == "fill_fp8" else self.module
        arguments = ctypes.c_uint64(pointer), ctypes.c_uint64(size // 4), ctypes.c_uint32(salt)
        self.gpu.launcher(self.gpu.function(module, kernel), self.gpu.processors * 8, 256, 0, *arguments)()
        self.gpu.synchronize()

    def row(self, what, detail, kind, work, launch, repeats, pause=0.0, check=None):
        """Times a launch that moves or computes `work`, and keeps it as a row."""
        if self.quick:
            repeats = min(repeats, 3)
        with self.clocks:
            taken = self.gpu.times(launch, repeats, pause)
        rates = sorted(work / seconds for seconds in taken)
        nominal = self.nominal and self.nominal[("bytes", "bf16", "fp8").index(kind)]
        possible = (
            self.bus_rate if kind == "bytes" else self.clock_rate and self.clock_rate * (2 if kind == "fp8" else 1)
        )
        row = {
            "what": what,
            "detail": detail,
            "unit": "bytes/s" if kind == "bytes" else "operations/s",
            "work": work,
            "repeats": repeats,
            "median_seconds": statistics.median(taken),
            "best": rates[-1],
            "median": statistics.median(rates),
            "p10": rates[len(rates) // 10],
            "worst": rates[0],
            "median_over_nominal": nominal and statistics.median(rates) / nominal,
            "best_over_nominal": nominal and rates[-1] / nominal,
            "best_over_clock": possible and rates[-1] / possible,
            "clocks": self.clocks.summary(),
            "check": check,
        }
        self.rows.append(row)
        print(f"  {what}, {detail}: best {rates[-1] / 1e12:.4g}, median {row['median'] / 1e12:.4g}", file=sys.stderr)
        return row

    def attempt(self, name, work):
        """Does one part; what fails is said and left out."""
        print(name, file=sys.stderr)
        start = time.monotonic()
        try:
            work()
        except Exception as error:
            self.left_out.append(f"{name}: {type(error).__name__}: {error}")
            print(f"  left out: {error!r}", file=sys.stderr)
        print(f"  {time.monotonic() - start:.1f} s", file=sys.stderr)

    def readers(self, pointer, size, out):
        arguments = ctypes.c_uint64(pointer), ctypes.c_uint64(size), ctypes.c_uint64(out)
        for threads, unroll in LOADS:
            function = self.gpu.function(self.module, f"read_{threads}_{unroll}")
            for blocks in (2048 // threads, 16):
                launch = self.gpu.launcher(function, self.gpu.processors * blocks, threads, 0, *arguments)
                yield f"loads, {threads} threads x {blocks} blocks, {unroll} in flight", launch
        if self.hopper:
            for chunk, stages in BULKS:
                function = self.gpu.function(self.hopper, f"bulk_{chunk}_{stages}", chunk * stages)
                # As many as fit in the 227 KiB of a multiprocessor.
                blocks = max(1, 227 * 1024 // (chunk * stages + 1024))
                launch = self.gpu.launcher(
                    function, self.gpu.processors * blocks, BULK_THREADS, chunk * stages, *arguments
                )
                yield f"bulk copies, {stages} of {chunk >> 10} KiB x {blocks} blocks", launch

    def checked(self, launch, out):
        """The XOR of all that a reader read."""
        self.gpu.constant(out, 0, 4)
        launch()
        return struct.unpack("<I", self.gpu.fetch(out, 4))[0]

    def read(self):
        gpu, size, out = self.gpu, 16 * GIB, self.gpu.allocate(256)
        pointer = gpu.allocate(size)
        small = 8 << 20
        self.fill("fill_raw", pointer, small)
        expected = 0
        for word in range(small // 4):
            expected ^= hash_word(word)
        wrong = [name for name, launch in self.readers(pointer, small, out) if self.checked(launch, out) != expected]
        self.fill("fill_bf16", pointer, size)
        seen = set()
        best = None
        for name, launch in self.readers(pointer, size, out):
            seen.add(self.checked(launch, out))
            row = self.row("read", name, "bytes", size, launch, 40, check=name not in wrong)
            if best is None or row["median"] > best[1]["median"]:
                best = launch, row
        if len(seen) > 1:
            self.left_out.append(f"the readers do not agree on the {size >> 30} GiB: {sorted(seen)}")
        self.row("read, best again", best[1]["detail"], "bytes", size, best[0], 300, check=len(seen) == 1 and not wrong)
        gpu.constant(pointer, 0, size)
        self.row("read, zeros", best[1]["detail"], "bytes", size, best[0], 40, check=self.checked(best[0], out) == 0)
        gpu.free(pointer)

    def read_compressible(self):
        size, out = 4 * GIB, self.gpu.allocate(256)
        pointer = self.gpu.compressible(size)
        if pointer is None:
            raise Missing("the driver grants none")
        self.fill("fill_bf16", pointer, size)
        readers = list(self.readers(pointer, size, out))
        # The first of the loads, the last of the bulk copies.
        for name, launch in (readers[0], readers[-1]):
            self.fill("fill_bf16", pointer, size)
            self.row("read, compressible", name, "bytes", size, launch, 100)
            self.gpu.constant(pointer, 0, size)
            self.row(
                "read, compressible, zeros", name, "bytes", size, launch, 100, check=self.checked(launch, out) == 0
            )

    def step(self, lt):
        """One token of Qwen2.5-72B on one of four GPUs, batch 1: all of its matrices, each read once."""
        gpu = self.gpu
        layer = [("qkv", 2560, 8192), ("o", 8192, 2048), ("gate+up", 14784, 8192), ("down", 8192, 7392)]
        shapes = layer * 80 + [("head", 38016, 8192)]
        size = sum(2 * rows * columns for _, rows, columns in shapes)
        weights, vector, result = gpu.allocate(size), gpu.allocate(1 << 20), gpu.allocate(1 << 20)
        self.fill("fill_bf16", weights, size)
        self.fill("fill_bf16", vector, 1 << 20, 77)
        function = gpu.function(self.module, "gemv")
        ours, at = [], weights
        for _, rows, columns in shapes:
            arguments = (
                ctypes.c_uint64(at),
                ctypes.c_uint64(vector),
                ctypes.c_uint64(result),
                ctypes.c_uint32(rows),
                ctypes.c_uint32(columns // 8),
            )
            ours.append(gpu.launcher(function, -(-rows // 8), 256, 0, *arguments))
            at += 2 * rows * columns
        good = True
        at = weights
        for i, (_, rows, columns) in enumerate(layer):
            ours[i]()
            y = struct.unpack(f"<{rows}f", gpu.fetch(result, 4 * rows))
            x = floats(gpu.fetch(vector, 2 * columns))
            for row in random.Random(i).sample(range(rows), 4):
                w = floats(gpu.fetch(at + 2 * columns * row, 2 * columns))
                good &= abs(sum(p * q for p, q in zip(w, x)) - y[row]) < 1e-2
            at += 2 * rows * columns
        self.row("decode step", "own kernels, one graph", "bytes", size, gpu.graph(ours), 100, check=good)
        head = ours[-1]
        self.row("decode step, the head alone", "own kernel, 38016 x 8192", "bytes", 2 * 38016 * 8192, head, 40)
        if lt:
            theirs, at, algorithms = [], weights, {}
            for name, rows, columns in shapes:
                launches = lt.prepare(lt.BF16, rows, 1, columns, at, vector, result, 4)
                if name not in algorithms:
                    algorithms[name] = launches.index(lt.fastest(launches))
                theirs.append(launches[algorithms[name]])
                at += 2 * rows * columns
            self.row("decode step", "cuBLASLt, one graph", "bytes", size, gpu.graph(theirs), 100)
        for pointer in (weights, vector, result):
            gpu.free(pointer)

    def matmul(self, lt):
        gpu = self.gpu
        for label, m, n, k in (
            ("8192 x 8192 x 8192", 8192, 8192, 8192),
            ("gate+up, 14784 x 8192, 8192 tokens", 14784, 8192, 8192),
        ):
            for kind, code, width in (("bf16", lt.BF16, 2), ("fp8", lt.FP8, 1)):
                if kind == "fp8" and not self.hopper:
                    continue
                w, x, d = gpu.allocate(m * k * width), gpu.allocate(n * k * width), gpu.allocate(m * n * 2)
                self.fill(f"fill_{kind}", w, m * k * width, 1)
                self.fill(f"fill_{kind}", x, n * k * width, 2)
                launch = lt.fastest(lt.prepare(code, m, n, k, w, x, d))
                good = True
                decode = floats if kind == "bf16" else small_floats
                for i in range(6):
                    row, column = random.Random(i).randrange(m), random.Random(i + 100).randrange(n)
                    a = decode(gpu.fetch(w + row * k * width, k * width))
                    b = decode(gpu.fetch(x + column * k * width, k * width))
                    got = floats(gpu.fetch(d + 2 * (column * m + row), 4))[0]
                    # Sums of k products of unit deviation: their deviation is the root of k.
                    good &= abs(sum(p * q for p, q in zip(a, b)) - got) < 0.05 * k**0.5
                work = 2 * m * n * k
                self.row(f"matmul {kind}", label, kind, work, launch, 600, check=good)
                self.row(f"matmul {kind}, one at a time", label, kind, work, launch, 10, pause=0.25)
                if m == 8192:
                    gpu.constant(w, 0, m * k * width)
                    gpu.constant(x, 0, n * k * width)
                    self.row(f"matmul {kind}, zeros", label, kind, work, launch, 600)
                    self.row(f"matmul {kind}, zeros, one at a time", label, kind, work, launch, 10, pause=0.25)
                for pointer in (w, x, d):
                    gpu.free(pointer)

    def tensor(self):
        if not self.hopper:
            raise Missing("not a Hopper GPU")
        gpu = self.gpu
        source, out, clocks = gpu.allocate(TILE), gpu.allocate(4 * 512 * gpu.processors), gpu.allocate(256)
        for kind, name, ones, depth in (("bf16", "bf16", 0x3F803F80, 16), ("fp8", "e4m3", 0x38383838, 32)):
            for groups, flying in TENSORS:
                function = gpu.function(self.hopper, f"tensor_{name}_{groups}_{flying}", TILE)
                threads = 128 * groups

                def launcher(iterations):
                    arguments = (
                        ctypes.c_uint64(source),
                        ctypes.c_uint64(out),
                        ctypes.c_uint64(clocks),
                        ctypes.c_uint32(iterations),
                    )
                    return gpu.launcher(function, gpu.processors, threads, TILE, *arguments)

                gpu.constant(source, ones, TILE)
                launcher(8)()
                sums = struct.unpack(f"<{threads * gpu.processors}f", gpu.fetch(out, 4 * threads * gpu.processors))
                # 128 sums a thread, each of as many ones as it took products.
                good = set(sums) == {128.0 * 8 * STEPS * depth}
                iterations = 2000 // groups
                work = iterations * STEPS * 2 * 64 * 256 * depth * groups * gpu.processors
                for data in ("normal", "zeros"):
                    if data == "zeros":
                        gpu.constant(source, 0, TILE)
                    else:
                        self.fill(f"fill_{kind}", source, TILE)
                    suffix = "" if data == "normal" else ", zeros"
                    detail = f"wgmma m64n256k{depth}, {groups} warpgroup{'s' * (groups > 1)}"
                    # Long, where the limit of power is felt, and short, where it is not yet.
                    for length, part, repeats, pause in (("", 1, 300, 0), (", 0.2 ms", 10, 40, 0.05)):
                        what = f"tensor cores alone {kind}{suffix}{length}"
                        row = self.row(
                            what, detail, kind, work / part, launcher(iterations // part), repeats, pause, good
                        )
                        # Of the last launch, from within: what launching takes is not in it.
                        clock, nanoseconds = struct.unpack("<QQ", gpu.fetch(clocks, 16))
                        row["operations_per_clock"] = work / part / gpu.processors / clock
                        row["mhz_within"] = clock / nanoseconds * 1e3
                    time.sleep(0.3)


def floats(data):
    """The values of bf16 data."""
    return [
        struct.unpack("<f", struct.pack("<I", half << 16))[0] for half in struct.unpack(f"<{len(data) // 2}H", data)
    ]


def small_floats(data):
    """The values of fp8 (e4m3) data."""
    return [
        (-1 if byte & 128 else 1)
        * ((byte & 7) / 512 if not byte >> 3 & 15 else (1 + (byte & 7) / 8) * 2.0 ** ((byte >> 3 & 15) - 7))
        for byte in data
    ]


def smi(bus):
    fields = (
        "name,driver_version,vbios_version,pstate,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,power.max_limit,"
        "power.draw,temperature.gpu,ecc.mode.current,mig.mode.current,memory.total,memory.used"
    )
    try:
        output = subprocess.run(
            ["nvidia-smi", f"--id={bus}", f"--query-gpu={fields}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    if output.returncode:
        return {"error": (output.stdout + output.stderr).strip()}
    return dict(zip(fields.split(","), (value.strip() for value in output.stdout.split(","))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", help="write the JSON there instead of to standard output, and the table to standard output"
    )
    parser.add_argument("--device", type=int, default=0, help="which GPU")
    parser.add_argument("--quick", action="store_true", help="three repeats of each, to see that it works")
    parser.add_argument("--ptx", choices=("common", "hopper"), help="print the kernels and end; needs no GPU")
    options = parser.parse_args()
    if options.ptx:
        print({"common": common, "hopper": hopper}[options.ptx]())
        return 0
    try:
        gpu = Gpu(options.device)
    except Missing as error:
        print(f"gpu_floor: {error}", file=sys.stderr)
        return 2
    before = smi(gpu.bus)
    bench = Bench(gpu, options.quick)
    try:
        lt = Lt(gpu)
    except (Missing, RuntimeError) as error:
        lt = None
        bench.left_out.append(f"cuBLASLt: {error}")
    bench.attempt("read", bench.read)
    bench.attempt("read, compressible", bench.read_compressible)
    bench.attempt("decode step", lambda: bench.step(lt))
    bench.attempt("tensor cores alone", bench.tensor)
    if lt:
        bench.attempt("matmul", lambda: bench.matmul(lt))
    version = ctypes.c_int()
    gpu.call("cuDriverGetVersion", ctypes.byref(version))
    report = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python3", *sys.argv]),
        "host": {"kernel": platform.release(), "python": platform.python_version()},
        "gpu": {
            "name": gpu.name,
            "capability": gpu.capability,
            "processors": gpu.processors,
            "l2_bytes": gpu.attribute(38),
            "max_sm_khz": gpu.attribute(13),
            "memory_khz": gpu.attribute(36),
            "bus_bits": gpu.attribute(37),
            "cuda": version.value,
            "cublaslt": lt and lt.version,
        },
        "nvidia_smi_before": before,
        "nvidia_smi_after": smi(gpu.bus),
        "nominal": bench.nominal and dict(zip(("bytes_per_s", "bf16_per_s", "fp8_per_s"), bench.nominal)),
        "from_clocks": {
            "bytes_per_s": bench.bus_rate,
            "bf16_per_s": bench.clock_rate,
            "fp8_per_s": bench.clock_rate and 2 * bench.clock_rate,
        },
        "rows": bench.rows,
        "left_out": bench.left_out,
    }
    text = json.dumps(report, indent=1)
    if options.out:
        with open(options.out, "w") as file:
            file.write(text + "\n")
    else:
        print(text)
    table(report, sys.stdout if options.out else sys.stderr)
    return 0


def table(report, out):
    def percent(share):
        return "-" if share is None else f"{share * 100:.1f} %"

    print(
        "| what | how | best, T/s | median | 10th percentile | median / nominal | best / nominal | best / clock x width | per SM and clock | MHz within | SM MHz | W | check |",
        file=out,
    )
    print("|---" * 13 + "|", file=out)
    for row in report["rows"]:
        clocks = [
            f"{row['clocks'][name]['median']:.0f}" if name in row["clocks"] else "-" for name in ("sm_mhz", "watts")
        ]
        per_clock = f"{row['operations_per_clock']:.0f}" if "operations_per_clock" in row else "-"
        within = f"{row['mhz_within']:.0f}" if "mhz_within" in row else "-"
        check = {None: "-", True: "ok", False: "WRONG"}[row["check"]]
        rates = [f"{row[name] / 1e12:.4g}" for name in ("best", "median", "p10")]
        shares = [percent(row[name]) for name in ("median_over_nominal", "best_over_nominal", "best_over_clock")]
        print(
            "| " + " | ".join([row["what"], row["detail"], *rates, *shares, per_clock, within, *clocks, check]) + " |",
            file=out,
        )
    for line in report["left_out"]:
        print(f"left out: {line}", file=out)


if __name__ == "__main__":
    sys.exit(main())
