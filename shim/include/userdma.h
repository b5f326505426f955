/*
 * What a program can tell `userdma check` of memory that peers access: which bytes are lent, for what, and until when. The
 * header needs no library: the functions are those of userdma's preload library, and without it they do nothing and cost
 * a few nanoseconds. For C and C++, with GCC or Clang. Code that is compiled with -fno-pic, which is not the default, does
 * not find the functions.
 *
 * Once bytes of a registered region have been lent, each access of a peer to bytes of the region that are not lent is an
 * error (`not-lent`). A byte is lent while any lend of it lasts that allows the access: lends may overlap, and a part of
 * lent memory may be lent again. Lends are those of the process that registered the memory: a child of fork has none.
 */
#ifndef USERDMA_H
#define USERDMA_H

#include <stdint.h>

#include "userdma_check.h"

/* What peers may do. */
enum { USERDMA_READ = 1, USERDMA_WRITE = 2, USERDMA_ATOMIC = 4 };

#ifdef __cplusplus
extern "C" {
#endif

uint64_t userdma_check_lend(const void *memory, size_t length, int rights, const char *label, uint32_t qp_num,
                            uint32_t milliseconds) __attribute__((weak));
int userdma_check_take_back(uint64_t lend) __attribute__((weak));
int userdma_check_expect_finished(const void *memory, size_t length) __attribute__((weak));
void userdma_check_unchecked(const void *memory, size_t length) __attribute__((weak));
void userdma_check_name(const void *memory, size_t length, const char *name) __attribute__((weak));
int userdma_check_present(void) __attribute__((weak));

/*
 * Lends `length` bytes of this process's memory from now on, before a peer is told of them. `rights`: USERDMA_READ,
 * USERDMA_WRITE and USERDMA_ATOMIC; with USERDMA_READ alone the owner promises not to change the bytes either. `label`: says
 * in findings for what, such as "request 17", at most 55 bytes; may be NULL. Returns the lend for userdma_take_back;
 * 0: nobody checks.
 */
static inline uint64_t userdma_lend(const void *memory, size_t length, int rights, const char *label)
{
    return userdma_check_lend ? userdma_check_lend(memory, length, rights, label, 0, 0) : 0;
}

/*
 * The same, only for the peer of the queue pair `qp_num` of this process (0: for any), and only for this many milliseconds
 * (0: until it is taken back).
 */
static inline uint64_t userdma_lend_to(const void *memory, size_t length, int rights, const char *label, uint32_t qp_num,
                                       uint32_t milliseconds)
{
    return userdma_check_lend ? userdma_check_lend(memory, length, rights, label, qp_num, milliseconds) : 0;
}

/* Ends a lend; 0 does nothing. Returns 0, or EINVAL if this process has not made it. */
static inline int userdma_take_back(uint64_t lend)
{
    return userdma_check_take_back ? userdma_check_take_back(lend) : 0;
}

/*
 * The program relies on it that no request of a peer to these bytes is outstanding. Returns 0, or how many are, which is a
 * finding too (`taken-back-early`).
 */
static inline int userdma_expect_finished(const void *memory, size_t length)
{
    return userdma_check_expect_finished ? userdma_check_expect_finished(memory, length) : 0;
}

/* Peers may access these bytes at any time, such as a flag or a ring within lent memory. Valid until the process ends. */
static inline void userdma_unchecked(const void *memory, size_t length)
{
    if (userdma_check_unchecked)
        userdma_check_unchecked(memory, length);
}

/* The name of these bytes in findings, at most 55 bytes. The latest name counts. */
static inline void userdma_name(const void *memory, size_t length, const char *name)
{
    if (userdma_check_name)
        userdma_check_name(memory, length, name);
}

/* Whether somebody checks: 1 or 0. */
static inline int userdma_present(void)
{
    return userdma_check_present ? userdma_check_present() : 0;
}

#ifdef __cplusplus
}
#endif

#endif
