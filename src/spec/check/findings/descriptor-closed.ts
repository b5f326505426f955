/*
 * The row of the finding descriptor-closed.
 */

export const descriptorClosed = {
  severity: 'error',
  needs: ['check', 'preload'],
  title: 'a program closed the descriptor of its device by close',
  why: 'The descriptor is that of ibv_open_device. When it is closed, as by a loop over all descriptors of a program that becomes a daemon, the kernel destroys all objects of the context: posts go nowhere, and later calls fail with EBADF.',
  advice: 'open the device after the descriptors were closed, or leave its descriptors (cmd_fd, async_fd) out',
} as const
