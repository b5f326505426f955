/* Walks of the caller's stack. */
#ifndef USERDMA_UNWIND_H
#define USERDMA_UNWIND_H

#include <stdint.h>

/* Finds the functions of the unwinder. Called after backtrace() has loaded it. */
void unwind_find(void);

/* Stores at most `max` return addresses of the caller's stack, innermost first. Returns their number. */
unsigned unwind_frames(void **frames, unsigned max);

/* The address of the outermost frame; 0: unknown. */
uintptr_t unwind_outermost(void);

#endif
