/* A child ends by exit, and so runs the clean-up of its parent, which destroys the parent's queue pair. */
#include "pair.h"

static struct end one, other;
static pid_t opener;

static void clean_up(void)
{
#ifdef FIXED
    if (getpid() != opener)
        return;
#endif
    if (one.qp)
        ibv_destroy_qp(one.qp); /* FAULT */
    one.qp = NULL;
}

int main(void)
{
    opener = getpid();
    check(ibv_fork_init(), "ibv_fork_init");
    make_pair(&one, &other);
    atexit(clean_up);
    const pid_t child = fork();
    if (child == 0)
        exit(0);
    waitpid(child, NULL, 0);
    clean_up();
    one.qp = NULL;
    return destroy_pair(&one, &other);
}
