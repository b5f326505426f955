/* Frames of Python programs. */
#pragma once
#include <stddef.h>

struct python_frame {
    /* Borrowed from a running frame. */
    void *code;
    int line;
};

/* Where the interpreter is loaded; NULL: there is no interpreter. */
const void *python_base(void);

/*
 * The Python frames of this thread, innermost first: their number, 0 if the thread does not run Python. The first call
 * looks for an interpreter.
 */
unsigned python_take(struct python_frame *frames, unsigned most);

/* Writes a frame as V8 does, `function (file:line)`, with a line feed; as snprintf. With the lock that python_take saw. */
int python_write(const struct python_frame *frame, char *text, size_t size);
