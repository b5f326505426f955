/* A signal handler polls the CQ. */
#include "pair.h"

#include <signal.h>
#include <sys/time.h>

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
    signal(SIGALRM, on_alarm);
    const struct itimerval soon = {.it_value = {.tv_usec = 10000}};
    check(setitimer(ITIMER_REAL, &soon, NULL), "setitimer");
    while (!is_due)
        usleep(1000);
    drain(&one);
    return destroy_pair(&one, &other);
}
