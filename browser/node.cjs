/*
 * Replaces Node's modules in bundles for a browser (`browser` in package.json): the members that the library uses while
 * it is loaded. Devices in one page need no more; sockets, files and daemons are refused when they are opened.
 */
module.exports = {
  constants: { errno: {} },
  channel: () => ({ hasSubscribers: false }),
  join: (...parts) => parts.join('/'),
}
