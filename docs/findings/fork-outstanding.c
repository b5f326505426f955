/* A process forks while a receive is posted. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
#ifdef FIXED
    check(ibv_fork_init(), "ibv_fork_init");
#endif
    make_pair(&one, &other);
    post_receive(&one, all_of(&one));
    const pid_t child = fork(); /* FAULT */
    if (child == 0)
        _exit(0);
    check(child < 0 || waitpid(child, NULL, 0) < 0, "fork");
    return destroy_pair(&one, &other);
}
