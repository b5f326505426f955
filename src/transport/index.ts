/*
 * What `userdma/transport` exports: the engines and the interfaces that whoever joins them with a device implements.
 */
export { createEngine, type Engine, type EngineOptions } from './engine.ts'
export * from './types.ts'
