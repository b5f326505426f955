/*
 * What a program can tell `userdma check --races`. The header needs no library: the functions are those of userdma's
 * preload library, and without it the macros do nothing. For C and C++, with GCC or Clang. Code that is compiled with
 * -fno-pic, which is not the default, does not find the functions.
 */
#ifndef USERDMA_CHECK_H
#define USERDMA_CHECK_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

void userdma_check_benign_race(volatile void *address, size_t length) __attribute__((weak));
void userdma_check_happens_after(void) __attribute__((weak));

#ifdef __cplusplus
}
#endif

/*
 * Requests that access `length` bytes of this process's memory from `address` on may race, for example because readers
 * validate what they read by a version and a checksum. Valid until the process ends, for its own requests and those of
 * peers. `why`: a text for the reader of the program.
 */
#define USERDMA_CHECK_BENIGN_RACE(address, length, why)                                                                \
    do {                                                                                                               \
        (void)sizeof(why);                                                                                             \
        if (userdma_check_benign_race)                                                                                 \
            userdma_check_benign_race((volatile void *)(address), (length));                                           \
    } while (0)

/*
 * This thread has learned, by means that userdma does not see, that other threads and programs have done what they had
 * to do: for example by polling a word that a peer writes. What any thread knew before is known to this thread.
 */
#define USERDMA_CHECK_HAPPENS_AFTER()                                                                                  \
    do {                                                                                                               \
        if (userdma_check_happens_after)                                                                               \
            userdma_check_happens_after();                                                                             \
    } while (0)

#endif
