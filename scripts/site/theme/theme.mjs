/*
 * The site's theme: that of VitePress, with diagrams. scripts/site.mjs copies this folder beside the pages.
 */
import DefaultTheme from 'vitepress/theme'
import { Diagram } from './diagram.mjs'
import './style.css'

export const theme = { extends: DefaultTheme, enhanceApp: ({ app }) => app.component('Diagram', Diagram) }
