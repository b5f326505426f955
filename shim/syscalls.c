/*
 * syscall(2), for system calls without a function in the program's C library. statx (libuv, Node.js) and openat2 have
 * paths, and are handled like the functions. Other calls jump to the next syscall() without using stack, because
 * further arguments are on the caller's stack.
 */
#define _GNU_SOURCE
#include "files/files.h"

#include <sys/syscall.h>

#define TEXT(number) #number
#define NUMBER(number) TEXT(number)

#ifdef __x86_64__
__asm__(".text\n"
        ".globl syscall\n"
        ".type syscall, @function\n"
        "syscall:\n"
        "    cmpq $" NUMBER(SYS_statx) ", %rdi\n"
        "    je 1f\n"
        "    cmpq $" NUMBER(SYS_openat2) ", %rdi\n"
        "    je 1f\n"
        "    jmp *shim_next_syscall(%rip)\n"
        "1:  jmp shim_system_call\n"
        ".size syscall, . - syscall\n");
#else
__asm__(".text\n"
        ".globl syscall\n"
        ".type syscall, %function\n"
        "syscall:\n"
        "    cmp x0, #" NUMBER(SYS_statx) "\n"
        "    b.eq 1f\n"
        "    cmp x0, #" NUMBER(SYS_openat2) "\n"
        "    b.eq 1f\n"
        "    adrp x16, shim_next_syscall\n"
        "    ldr x16, [x16, :lo12:shim_next_syscall]\n"
        "    br x16\n"
        "1:  b shim_system_call\n"
        ".size syscall, . - syscall\n");
#endif

__attribute__((visibility("hidden"), used)) long shim_system_call(long number, long a, long b, long c, long d, long e)
{
    /*
     * A descriptor (empty path) is not shown as a device: the TypeScript library, perhaps in a program with the shim,
     * needs the size of the context's file.
     */
    if (number == SYS_statx && (is_invalid_path((const char *)b) || *(const char *)b == 0))
        return shim_next_syscall(number, a, b, c, d, e);
    if (number == SYS_statx)
        return statx((int)a, (const char *)b, (int)c, (unsigned)d, (struct statx *)e);
    return openat2((int)a, (const char *)b, (const struct open_how *)c, (size_t)d);
}
