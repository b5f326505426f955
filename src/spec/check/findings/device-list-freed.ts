/*
 * The row of the finding device-list-freed.
 */

export const deviceListFreed = {
  severity: 'warning',
  needs: ['check', 'preload'],
  title: 'a device was opened after its list was freed',
  why: 'After ibv_free_device_list only the devices of open contexts exist (ibv_get_device_list(3)). rdma-core keeps the others until they are unplugged and the devices are listed again; from then on the program reads freed memory.',
  advice: 'open the devices before ibv_free_device_list, or get a new list',
} as const
