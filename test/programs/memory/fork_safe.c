/*
 * Fork with registered memory: the kernel copies pages at fork, so ibv_fork_init has nothing to do.
 *
 *   fork_safe [-d DEVICE]
 */
#include "../endpoint.h"

#include <sys/wait.h>

int main(int count, char **arguments)
{
    struct options options = default_options;
    int letter, status;
    while ((letter = getopt(count, arguments, "d:")) != -1)
        switch (letter) {
        case 'd': options.device = optarg; break;
        default: fail("usage: %s [-d DEVICE]", arguments[0]);
        }
    NEED(ibv_fork_init() == 0, "ibv_fork_init: %s", strerror(errno));
    struct ibv_context *context = open_named(options.device);
    struct ibv_pd *pd = ibv_alloc_pd(context);
    uint8_t *page = aligned_alloc(4096, 8192);
    NEED(pd && page, "no memory");
    memset(page, 5, 8192);
    struct ibv_mr *mr = ibv_reg_mr(pd, page + 100, 1000, IBV_ACCESS_LOCAL_WRITE);
    NEED(mr, "ibv_reg_mr: %s", strerror(errno));
    const pid_t child = fork();
    if (child == 0)
        _exit(page[0] == 5 && page[100] == 5 && page[4096] == 5 ? 0 : 1);
    NEED(waitpid(child, &status, 0) == child && status == 0, "the child ends with status 0x%x", status);
    NEED(ibv_is_fork_initialized() == IBV_FORK_UNNEEDED, "ibv_is_fork_initialized is %d", ibv_is_fork_initialized());
    NEED(ibv_dereg_mr(mr) == 0 && ibv_dealloc_pd(pd) == 0 && ibv_close_device(context) == 0, "%s", strerror(errno));
    puts("fork needs no preparation");
    return 0;
}
