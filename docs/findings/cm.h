/*
 * rdma_cm over the loopback address, for the programs in this folder.
 */
#ifndef CM_H
#define CM_H

#include <arpa/inet.h>
#include <rdma/rdma_cma.h>

#include "pair.h"

#endif
