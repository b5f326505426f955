/*
 * In the place of Node's modules where a bundler builds for a browser (`browser` in package.json): what the library
 * asks of them while it is loaded. Devices in one page need no more; sockets, files and daemons are refused when they are
 * opened.
 */
module.exports = {
  constants: { errno: {} },
  channel: () => ({ hasSubscribers: false }),
  join: (...parts) => parts.join('/'),
}
