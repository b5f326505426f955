/*
 * Calls with paths and descriptors.
 *
 *   descriptors.c  interposed calls on descriptors
 *   paths.c        redirected paths
 *   path_calls.c   interposed calls with paths; walks.c: glob and ftw; stat.c: the stat family
 *   listings.c     lists of the folders above RDMA paths, and of PCI functions
 */
#ifndef USERDMA_FILES_H
#define USERDMA_FILES_H

#include "../session/session.h"

/* The program has changed its current folder. Sets shim_may_be_in_tree. */
void path_folder_changed(void);
/* The program starts under a daemon that shows another machine: prepares its environment. */
void paths_show_machine(void);

#endif
