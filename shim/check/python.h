/* Frames of Python programs in stacks. */
#pragma once
#include <stddef.h>

struct python_frame {
    /* The code object (PyCodeObject), without a reference: valid while the frame runs. */
    void *code;
    int line;
};

/* Where the interpreter is loaded; NULL: none was found. */
const void *python_base(void);

/*
 * Stores the innermost Python frames of this thread, innermost first, at most `max_frames`. Returns their number; 0 if
 * this thread does not hold the interpreter's lock. The first call looks for an interpreter.
 */
unsigned python_take(struct python_frame *frames, unsigned max_frames);

/*
 * Writes a frame as V8 does, `function (file:line)`, with a line feed; result as of snprintf. Only while the frame runs
 * and this thread holds the interpreter's lock.
 */
int python_write(const struct python_frame *frame, char *text, size_t size);
