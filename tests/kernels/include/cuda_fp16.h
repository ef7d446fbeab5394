// The storage type __half on a CPU: 1 sign, 5 exponent, 10 fraction bits. Only stored and converted, never computed with.
// Converting rounds to the nearest, ties to even, as __float2half does; test_shim.py checks every bit pattern.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

struct __half {
    uint16_t bits;
    __half() = default;
    __half(float x) {
        uint32_t u;
        memcpy(&u, &x, 4);
        const uint16_t sign = uint16_t(u >> 16 & 0x8000);
        u &= 0x7fffffff;
        const float size = std::fabs(x);
        if (size != size) {
            bits = 0x7fff;  // the NaN that the GPU gives
        } else if (size >= 65520.0f) {
            bits = sign | 0x7c00;  // halfway beyond the largest, 65504: infinity
        } else if (size < 0x1p-14f) {
            bits = sign | uint16_t(std::nearbyint(size * 0x1p24f));  // subnormal: a multiple of 2^-24
        } else {
            // Drop 13 fraction bits. Adding just under half of what is dropped (and one more if the result would be odd)
            // rounds; a carry runs into the exponent, which is right. 112 is the difference of the exponents' biases.
            bits = sign | uint16_t((u - (112u << 23) + 0xfff + (u >> 13 & 1)) >> 13);
        }
    }
    operator float() const {
        const uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023;
        float size;
        if (exponent == 0) {
            size = float(fraction) * 0x1p-24f;
        } else {
            const uint32_t u = (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
            memcpy(&size, &u, 4);
        }
        return bits & 0x8000 ? -size : size;
    }
};

inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline float __half2float(__half x) { return float(x); }
