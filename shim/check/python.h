/* Frames of Python programs in stacks. */
#pragma once
#include <stddef.h>

struct python_frame {
    /* The code object (PyCodeObject), without a reference: valid while the frame runs. */
    void *code;
    int line;
};

/* The interpreter's load address; NULL: none was found. */
const void *python_base(void);

/*
 * Stores at most `max_frames` Python frames of this thread, innermost first. Returns their number; 0 if this thread
 * does not hold the GIL. The first call looks for an interpreter.
 */
unsigned python_take(struct python_frame *frames, unsigned max_frames);

/*
 * Writes a frame, `function (file:line)`, and a line feed. Result as of snprintf. Only while the frame runs and this
 * thread holds the GIL.
 */
int python_write(const struct python_frame *frame, char *text, size_t size);
