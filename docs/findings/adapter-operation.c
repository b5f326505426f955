/* Unreliable connections, which many adapters lack: run with `--like irdma`. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    struct ibv_qp_init_attr init = small_qp();
    init.qp_type = FAULT_OR(IBV_QPT_UC, IBV_QPT_RC);
    open_device();
    make_end_with(&one, init, 16); /* FAULT */
    make_end_with(&other, init, 16);
    return destroy_pair(&one, &other);
}
