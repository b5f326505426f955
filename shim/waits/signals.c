/*
 * Programs that install handlers of signals: the shim is told, since it has one itself (shim/check/samples.c).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>

#define EXPORT __attribute__((visibility("default")))

/* Of the shim (shim/check/check.h). */
__attribute__((weak, visibility("default"))) void userdma_handles_signal(int signal);

static int (*next_sigaction)(int, const struct sigaction *, struct sigaction *);
static sighandler_t (*next_signal)(int, sighandler_t);

__attribute__((constructor(101))) static void look_up(void)
{
    next_sigaction = (__typeof__(next_sigaction))dlsym(RTLD_NEXT, "sigaction");
    next_signal = (__typeof__(next_signal))dlsym(RTLD_NEXT, "signal");
}

EXPORT int sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
    if (!next_sigaction)
        look_up();
    if (action && userdma_handles_signal)
        userdma_handles_signal(number);
    return next_sigaction(number, action, old);
}

EXPORT sighandler_t signal(int number, sighandler_t handler)
{
    if (!next_signal)
        look_up();
    if (userdma_handles_signal)
        userdma_handles_signal(number);
    return next_signal(number, handler);
}
