// One binary for every x86-64 processor: a function marked MRB_MULTIVERSION is compiled for plain x86-64,
// AVX2 and AVX-512, and the loader picks the best one for the processor. Products and sums are never fused
// (-ffp-contract=off), so all versions compute the same bits. Such functions are no templates (compilers
// mishandle those); templates that they share are MRB_INLINE.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__gnu_linux__)
#define MRB_MULTIVERSION __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define MRB_MULTIVERSION
#endif

#if defined(__GNUC__)
#define MRB_INLINE inline __attribute__((always_inline))
#define MRB_RESTRICT __restrict__
#else
#define MRB_INLINE inline
#define MRB_RESTRICT
#endif
