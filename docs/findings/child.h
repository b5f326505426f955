/*
 * A child process that registers memory with its parent's device, for the programs about memory of an ended process.
 */
#ifndef CHILD_H
#define CHILD_H

#include "pair.h"

#include <stdbool.h>

/* A pipe that carries nothing: with `keep_child` the child exits when the write end is closed. */
static int stop[2];

/*
 * A forked child registers the buffer and returns the keys. It exits at once, or with `keep_child` when `stop` is
 * closed.
 */
static inline void register_in_child(const struct end *end, uint32_t *lkey, uint32_t *rkey, bool keep_child)
{
    int keys[2];
    check(pipe(keys) || pipe(stop), "pipe");
    if (fork() == 0) {
        close(stop[1]);
        struct ibv_mr *mr = need(ibv_reg_mr(end->pd, end->buffer, SIZE, end->access), "ibv_reg_mr");
        check(write(keys[1], &mr->lkey, 4) != 4 || write(keys[1], &mr->rkey, 4) != 4, "write");
        char byte;
        if (keep_child) {
            check(read(stop[0], &byte, 1) != 0, "read");
            check(ibv_dereg_mr(mr), "ibv_dereg_mr");
        }
        _exit(0);
    }
    check(read(keys[0], lkey, 4) != 4 || read(keys[0], rkey, 4) != 4, "read");
    if (!keep_child)
        check(wait(NULL) < 0, "wait");
}

/* Ends the child that was created with the same `keep_child`. */
static inline void end_child(bool keep_child)
{
    close(stop[1]);
    if (keep_child)
        check(wait(NULL) < 0, "wait");
}

#endif
