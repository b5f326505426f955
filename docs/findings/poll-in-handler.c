/* A signal handler polls the CQ. */
#include "pair.h"

#include <signal.h>

static struct end one, other;
static volatile sig_atomic_t is_due;

static void on_alarm(int signal)
{
    (void)signal;
#ifndef FIXED
    struct ibv_wc wc;
    ibv_poll_cq(one.cq, 1, &wc); /* FAULT */
#endif
    is_due = 1;
}

int main(void)
{
    make_pair(&one, &other);
    signal(SIGUSR1, on_alarm);
    raise(SIGUSR1);
    if (is_due)
        drain(&one);
    return destroy_pair(&one, &other);
}
