/* A child of fork posts a receive to a queue pair of its parent. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    const pid_t child = fork();
    if (FAULT_OR(child == 0, child != 0))
        post_receive(&one, all_of(&one)); /* FAULT */
    if (child == 0)
        _exit(0);
    check(child < 0 || waitpid(child, NULL, 0) < 0, "fork");
    return destroy_pair(&one, &other);
}
