import { mount } from 'svelte';

import './app.css';
import App from './App.svelte';
import { live } from './live/live.svelte';
import { place } from './live/place.svelte';

place.start();
live.start();

const target = document.getElementById('app');
if (!target) throw new Error('index.html has no #app');
mount(App, { target });
