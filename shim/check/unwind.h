/* Walks of the caller's stack. */
#ifndef USERDMA_UNWIND_H
#define USERDMA_UNWIND_H

#include <stdint.h>

/* Finds the functions of the unwinder, which backtrace() has loaded by then. */
void unwind_find(void);

/* Stores the return addresses of the caller's stack, innermost first, at most `max`. Returns their number. */
unsigned unwind_frames(void **frames, unsigned max);

/* The address of the outermost frame; 0: unknown. */
uintptr_t unwind_outermost(void);

#endif
