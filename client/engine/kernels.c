/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels run: the best variant that both the build and the CPU have, or the one the environment asks
 * for. The question is cheap and is asked anew each time, so that nothing global has to be kept. */
#include "kernels.h"

#include <stdlib.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__arm__)
#include <sys/auxv.h>
#endif

#if defined(__x86_64__) || defined(__i386__)
static bool cpu_has_avx2(void)
{
    enum {
        CPUID_1_ECX_F16C = 1 << 29
    }; /* a name that some compilers' __builtin_cpu_supports does not know */
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & CPUID_1_ECX_F16C) != 0 &&
           __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool cpu_has_avx512(void)
{
    return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

static bool cpu_has_neon(void)
{
    return false;
}
#else
static bool cpu_has_avx2(void)
{
    return false;
}

static bool cpu_has_avx512(void)
{
    return false;
}

static bool cpu_has_neon(void)
{
#if defined(__arm__)
    enum { HAS_NEON = 1 << 12, HAS_VFPV4 = 1 << 16 }; /* Linux, arch/arm/include/uapi/asm/hwcap.h */
    unsigned long have = getauxval(AT_HWCAP);
    return (have & HAS_NEON) != 0 && (have & HAS_VFPV4) != 0; /* VFPv4 brings the fused multiply-add */
#elif defined(__aarch64__)
    return true; /* part of the architecture */
#else
    return false;
#endif
}
#endif

size_t linnet_kernels_available(const linnet_kernels *ret_list[8])
{
    size_t n = 0;
    ret_list[n++] = linnet_kernels_scalar();
    if (linnet_kernels_neon() && cpu_has_neon())
        ret_list[n++] = linnet_kernels_neon();
    if (linnet_kernels_avx2() && cpu_has_avx2())
        ret_list[n++] = linnet_kernels_avx2();
    if (linnet_kernels_avx512() && cpu_has_avx512())
        ret_list[n++] = linnet_kernels_avx512();
    return n;
}

const linnet_kernels *linnet_kernels_best(void)
{
    const linnet_kernels *list[8];
    size_t n = linnet_kernels_available(list);
    const char *asked = getenv("LINNET_KERNELS");
    for (size_t i = 0; asked && i < n; i++)
        if (strcmp(list[i]->name, asked) == 0)
            return list[i];
    return list[n - 1];
}
